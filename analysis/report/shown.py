"""Whose learning curves, calibration and cost a report shows: the confirmed trials' where there are any.

Before a confirmation it is the repetitions'. Afterwards there are more seeds, on which nothing was chosen.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from analysis.questions.confirmation import ConfirmationResult, ConfirmedConfig, described
from analysis.reading.trials import BASELINE, CONFIRM, REPEATED, ConfigSummary
from analysis.wording.numbers import config_label, counted

MOST_IN_DIAGRAMS: Final = 4  # configs that can be told apart in one panel


@dataclass(frozen=True)
class Shown:
    """What these sections are of.

    Args:
        stages: whose trials.
        is_confirmed: whether those are the confirmation's.
        configs: with the scores that are set against cost, of the test split where they are confirmed.
        rows: identifier and name of each config in the table.
        labels: what diagrams call each config, by identifier.
        in_diagrams: identifiers of those in the reliability diagrams.
        always: names of those that are among the learning curves however many there are.
        baseline: name of the config that the others are compared with.
        note: of which trials they are; None for repetitions, of which the figures say so themselves.
    """

    stages: tuple[str, ...]
    is_confirmed: bool
    configs: Sequence[ConfigSummary]
    rows: tuple[tuple[str, str], ...]
    labels: Mapping[str, str]
    in_diagrams: tuple[str, ...]
    always: tuple[str, ...]
    baseline: str
    note: str | None

    @property
    def left_out(self) -> list[str]:
        """Names of the configs that are in no reliability diagram."""
        return [label for config_id, label in self.labels.items() if config_id not in self.in_diagrams]


def whom_to_show(
    configs: Sequence[ConfigSummary],
    confirmed: ConfirmationResult | None,
    confirmed_methods: Sequence[ConfigSummary],
    *,
    compares: bool,
) -> Shown:
    """The confirmed configs, or those that were repeated where nothing is confirmed.

    Args:
        configs: what was repeated.
        confirmed: what a complete confirmation found.
        confirmed_methods: the same, where methods are compared.
        compares: whether they are.
    """
    own = [each for each in confirmed.configs if each.test_accuracy.n] if confirmed is not None else []
    if confirmed is None or not own:
        return _repeated(configs, compares=compares)
    seeds = sorted({each.test_accuracy.n for each in own})
    all_of_them = counted(len(own), "method" if compares else "config")
    each_on = f"{seeds[0]} to {counted(seeds[-1], 'seed')}" if len(seeds) > 1 else counted(seeds[0], "seed")
    first = [each for each in own if each.rank == 1 or each.control == BASELINE]
    kept = [*first, *(each for each in own if each not in first)][:MOST_IN_DIAGRAMS]
    return Shown(
        stages=(CONFIRM,),
        is_confirmed=True,
        configs=confirmed_methods or [_summary(each, confirmed.objective) for each in own],
        rows=tuple((each.config_id, described(each)) for each in own),
        labels={each.config_id: each.label for each in own},
        in_diagrams=tuple(each.config_id for each in own if each in kept),
        always=tuple(each.label for each in first),
        baseline=next((each.label for each in own if each.control == BASELINE), BASELINE),
        note=f"Of the confirmation's trials: n = {each_on} for each of {all_of_them}.",
    )


def _repeated(configs: Sequence[ConfigSummary], *, compares: bool) -> Shown:
    """In diagrams the controls and the best config; of compared methods the baseline and the best."""
    beside = [each for each in configs if (each.method == BASELINE if compares else each.stage == "control")]
    best = [each for each in configs if each not in beside]
    kept = [*beside, *(best if compares else best[:1])][:MOST_IN_DIAGRAMS]
    labels: dict[str, str] = {}
    for each in [*kept, *configs]:  # all but the first of a method have the config's name
        taken = each.method in labels.values()
        labels.setdefault(each.config_id, each.name if taken else each.method)
    return Shown(
        stages=REPEATED,
        is_confirmed=False,
        configs=configs,
        rows=tuple((each.config_id, config_label(each)) for each in configs),
        labels=labels,
        in_diagrams=tuple(each.config_id for each in kept),
        always=(BASELINE,),
        baseline=BASELINE,
        note=None,
    )


def _summary(config: ConfirmedConfig, objective: str) -> ConfigSummary:
    """A confirmed config as the figure of costs takes it: with its score on the test split."""
    is_baseline = config.control == BASELINE and config.rank is None
    return ConfigSummary(
        config_id=config.config_id,
        name=config.label,
        method=BASELINE if is_baseline else config.label,
        stage="replicate" if config.control is None else "control",
        varied={},
        accuracy=config.test_accuracy,
        gap=config.gap,
        test_accuracy=config.test_accuracy,
        against_baseline=None,
        search_accuracy=None,
        split="test",
        objective=objective,
    )
