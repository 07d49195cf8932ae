"""Best config of a study, with the options for exactly this config."""

import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from analysis.questions.confirmation import ConfirmationResult
from analysis.reading.trials import ConfigSummary
from analysis.statistics.estimates import Estimate
from study.cli.start_command import teacher_options
from study.ledger.front import eligible
from study.ledger.ledger import StudyLedger
from study.plan.options import OPTIONS, names_into
from study.plan.plan import StudyPlan
from study.plan.user_code import typed_reference
from trainables.spec.methods.row_names import short_name
from trainables.spec.recipes import default_epochs
from trainables.spec.trial import SEED_FIELDS, TrialConfig

# Fields with a separate option, although the option's value is changed before use in configs.
_OTHER_OPTIONS: Final = ("precision",)
# Given by --teacher-checkpoint.
_OF_CHECKPOINT: Final = ("teacher_digest", "teacher_recipe")


@dataclass(frozen=True)
class BestConfig:
    """Best config of a study.

    Args:
        config_id: identifier of the config.
        name: readable name.
        method: distillation method, as in the result table.
        chosen_by: `confirmation`, `repetitions` or `search`. A search score is biased upwards.
        split: split of the score.
        score: mean objective over `n` seeds, with the interval; a single score for a search.
        options: options for this config, by Python name; `hold` has the fields for `--set`.
    """

    config_id: str
    name: str
    method: str
    chosen_by: str
    split: str
    score: Estimate
    options: dict[str, Any]

    @property
    def arguments(self) -> list[str]:
        """Command-line arguments for this config, in a space that does not vary these fields."""
        words: list[str] = []
        for name, value in self.options.items():
            flag = OPTIONS[name].long_flag
            if name == "hold":
                words += [word for field, each in value.items() for word in (flag, f"{field}={each}")]
            else:
                words += [flag] if value is True else [flag, str(value)]
        return words

    @property
    def line(self) -> str:
        """The arguments in one line."""
        return shlex.join(self.arguments)

    def as_dict(self) -> dict[str, Any]:
        """Return the config for `summary.json`. Unknown bounds may still be NaN."""
        return {
            "config_id": self.config_id,
            "name": self.name,
            "method": self.method,
            "chosen_by": self.chosen_by,
            "split": self.split,
            "score": self.score.value,
            "low": self.score.low,
            "high": self.score.high,
            "n": self.score.n,
            "options": self.options,
            "arguments": self.arguments,
            "line": self.line,
        }


def find_best(
    plan: StudyPlan, ledger: StudyLedger, configs: Sequence[ConfigSummary], confirmed: ConfirmationResult | None
) -> BestConfig | None:
    """Return the best config: the first choice of a complete confirmation, or else the best repeated config.

    Without a repeated config, return the config with the highest search score, within the limits if there are any.
    Controls are no candidates, except in a comparison of methods.

    Args:
        plan: the study.
        ledger: trials of the study.
        configs: rows of the result table.
        confirmed: result of a complete confirmation, or None.
    """
    known = {entry.config_id: entry for entry in ledger.entries.values()}
    first = confirmed.first if confirmed is not None else None
    if first is not None and first.config_id in known and first.test_accuracy.n:
        return _best(plan, known[first.config_id].config, first.config_id, first.label, first.method,
                     "confirmation", "test", first.test_accuracy)  # fmt: skip
    repeated = [each for each in configs if (plan.compared or each.stage == "replicate") and each.config_id in known]
    if repeated:
        row = repeated[0]
        return _best(plan, known[row.config_id].config, row.config_id, row.name, row.method, "repetitions",
                     row.split, row.accuracy)  # fmt: skip
    on_front = eligible(ledger)
    searched = [
        entry
        for entry in ledger.in_stage("search")
        if entry.status == "finished" and (on_front is None or entry.config.config_id in on_front)
    ]
    if not searched:
        return None
    entry = max(searched, key=lambda each: each.score)
    score = Estimate(
        entry.score, float("nan"), float("nan"), 1, "single score of the search, which selected the config"
    )
    return _best(plan, entry.config, entry.config_id, entry.name, "", "search", "validation", score)


def _best(
    plan: StudyPlan, config: TrialConfig, config_id: str, name: str, method: str, chosen_by: str, split: str,
    score: Estimate,
) -> BestConfig:  # fmt: skip
    shown = method or short_name(config.method) + ("+adapter" if config.adapter else "")
    return BestConfig(config_id, name, shown, chosen_by, split, score, options_of(config, plan))


def options_of(config: TrialConfig, plan: StudyPlan) -> dict[str, Any]:
    """Return the options for a config, by Python name.

    Args:
        config: config of a trial in the study; the seeds are left out.
        plan: the study, for a given teacher.
    """
    read = config.method_spec.fields.union(TrialConfig.model_fields) - SEED_FIELDS
    changed = {name: value for name, value in config.changed_fields.items() if name in read}
    # Without the option, the precision would depend on the machine.
    options: dict[str, Any] = {"precision": config.precision}
    if config.teacher_digest:
        options |= {name: str(value) for name, value in teacher_options(plan)}
        changed = {name: value for name, value in changed.items() if name not in _OF_CHECKPOINT}
    elif config.teacher_epochs == default_epochs(config.teacher_recipe, config.dataset):
        changed.pop("teacher_epochs", None)
    own = (*names_into("config"), *_OTHER_OPTIONS)
    options = {**{name: value for name, value in changed.items() if name in own}, **options}
    options |= {
        name: typed_reference(plan, options[name])
        for name in ("dataset", "student", "teacher", "method")
        if name in options
    }
    held = {name: value for name, value in changed.items() if name not in own}
    return {**options, "hold": held} if held else options
