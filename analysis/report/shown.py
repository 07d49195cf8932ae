"""Choose the trials for learning curves, calibration and cost: confirmation trials if there are any, else repetitions.

A confirmation has more seeds, and no choice used these seeds.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from analysis.questions.confirmation import ConfirmationResult, ConfirmedConfig
from analysis.questions.confirmation_words import described
from analysis.questions.methods import config_label
from analysis.reading.trials import BASELINE, CONFIRM, REPEATED, ConfigSummary, control_name
from trainables.display.numbers import counted

MOST_IN_DIAGRAMS: Final = 4  # number of distinguishable configs in one panel


@dataclass(frozen=True)
class Shown:
    """Trials and configs shown in these sections.

    Args:
        stages: stages of the shown trials.
        is_confirmed: whether these are confirmation trials.
        configs: configs with scores for the cost figure; on the test split for confirmation trials.
        rows: identifier and name for each config in the table.
        labels: name of each config in diagrams, by identifier.
        in_diagrams: identifiers of the configs in the reliability diagrams.
        always: names of learning curves drawn in any case.
        baseline: name of the config to compare the others with.
        note: description of the trials; None for repetitions, because their figures contain it.
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
        """Names of configs without a reliability diagram."""
        return [label for config_id, label in self.labels.items() if config_id not in self.in_diagrams]


def whom_to_show(
    configs: Sequence[ConfigSummary],
    confirmed: ConfirmationResult | None,
    confirmed_methods: Sequence[ConfigSummary],
    *,
    compares: bool,
) -> Shown:
    """Return the confirmed configs, or the repeated configs if none is confirmed.

    Args:
        configs: repeated configs.
        confirmed: complete confirmation, or None.
        confirmed_methods: confirmed methods, in a comparison of methods.
        compares: whether the study compares methods.
    """
    own = [each for each in confirmed.configs if each.test_accuracy.n] if confirmed is not None else []
    if confirmed is None or not own:
        return _repeated(configs, compares=compares)
    seeds = sorted({each.test_accuracy.n for each in own})
    all_of_them = counted(len(own), "method" if compares and not confirmed.methods else "config")
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
        note=f"Trials of the confirmation: n = {each_on} for each of {all_of_them}.",
    )


def _repeated(configs: Sequence[ConfigSummary], *, compares: bool) -> Shown:
    """Show the repeated configs.

    Diagrams contain the controls and the best config, or the baseline and the best methods if methods are compared.
    """
    beside = [each for each in configs if (each.method == BASELINE if compares else each.stage == "control")]
    best = [each for each in configs if each not in beside]
    kept = [*beside, *(best if compares else best[:1])][:MOST_IN_DIAGRAMS]
    labels: dict[str, str] = {}
    for each in [*kept, *configs]:  # a method's first config takes the method name
        own = control_name(each) if each.stage == "control" else each.method
        labels.setdefault(each.config_id, each.name if own in labels.values() else own)
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
    """Convert a confirmed config to a summary for the cost figure, with the score on the test split."""
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
