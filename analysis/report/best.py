"""Best config of a study as a line with options to copy."""

import itertools
import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from analysis.questions.confirmation import ConfirmationResult
from analysis.questions.methods import config_label
from analysis.reading.trials import SEARCH, STUDENT, ConfigSummary, select, trial_scores, varied_fields
from analysis.report.folder import StudyFolder

# Start command options that affect a config, besides the method and the varied fields.
_KEPT: Final = (
    "--dataset", "--student", "--teacher", "--epochs", "--precision", "--teacher-recipe", "--teacher-epochs",
    "--teacher-checkpoint", "--set",
)  # fmt: skip
_OF_RECORDS: Final = {
    "--dataset": "dataset",
    "--student": "student",
    "--teacher": "teacher",
    "--epochs": "epochs_planned",
}
_IN_METHOD: Final = ("method", "adapter")


@dataclass(frozen=True)
class BestLine:
    """Best config.

    Args:
        about: name, and how the config was chosen; without a best config, the reason.
        line: options of `python -m study.launch` to copy; empty without a best config.
    """

    about: str
    line: str


@dataclass(frozen=True)
class _Chosen:
    """Config chosen from the records, in the order of `study.result.best`."""

    config_id: str
    name: str
    chosen_by: str


def best_line(study: StudyFolder, configs: Sequence[ConfigSummary], confirmed: ConfirmationResult | None) -> BestLine:
    """Return the best config from the summary, or from the records if an earlier version wrote the summary.

    Args:
        study: the study.
        configs: repeated configs.
        confirmed: complete confirmation, or None.
    """
    best = study.summary.get("best")
    if best:
        return BestLine(f"Best config, by {best['chosen_by']}: {best['name']}", str(best["line"]))
    chosen = _choose(study, configs, confirmed)
    if chosen is None:
        return BestLine("No best config: no trial of a candidate has finished.", "")
    about = f"Best config, by {chosen.chosen_by}: {chosen.name}"
    if study.summary:
        about += " (computed from the records; with the options of the start command)"
    return BestLine(about, _line(study, chosen.config_id, configs))


def _choose(
    study: StudyFolder, configs: Sequence[ConfigSummary], confirmed: ConfirmationResult | None
) -> _Chosen | None:
    first = None if confirmed is None else confirmed.first
    if first is not None and first.test_accuracy.n:
        return _Chosen(first.config_id, first.label, "confirmation")
    repeated = [each for each in configs if study.compares_methods or each.stage == "replicate"]
    if repeated:
        row = max(repeated, key=lambda each: each.accuracy.value)
        return _Chosen(row.config_id, config_label(row), "repetitions")
    searched = select(study.records.trials, stages=[SEARCH])
    scores = [-math.inf if math.isnan(score) else score for score in trial_scores(searched).tolist()]
    if not scores or max(scores) == -math.inf:
        return None
    trial = searched.slice(scores.index(max(scores)), 1).to_pylist()[0]
    return _Chosen(trial["config_id"], trial["name"], "search, from one seed that also selected it")


def _line(study: StudyFolder, config_id: str, configs: Sequence[ConfigSummary]) -> str:
    """Return the options to reproduce a config from the records."""
    trials = study.records.trials
    trial = trials.slice(trials["config_id"].to_pylist().index(config_id), 1).to_pylist()[0]
    kept, held = _of_command(study)
    for flag, column in _OF_RECORDS.items():
        if trial.get(column) and (flag not in kept or column == STUDENT):
            kept[flag] = str(trial[column])
    held |= _varied(study, trial, configs)
    words = ["--method", str(trial["method"]), *(["--adapter"] if trial.get("adapter") else [])]
    words += [word for pair in kept.items() for word in pair]
    words += [word for name, value in held.items() for word in ("--set", f"{name}={value}")]
    return shlex.join(words)


def _of_command(study: StudyFolder) -> tuple[dict[str, str], dict[str, Any]]:
    """Return the start command options that affect a config, and the fields held by `--set`."""
    words = study.command_words
    pairs = [(flag, value) for flag, value in itertools.pairwise(words) if flag in _KEPT]
    held = dict(value.split("=", 1) for flag, value in pairs if flag == "--set" and "=" in value)
    return {flag: value for flag, value in pairs if flag != "--set"}, held


def _varied(study: StudyFolder, trial: Mapping[str, Any], configs: Sequence[ConfigSummary]) -> dict[str, Any]:
    """Return the config's fields that differ from the other configs."""
    if not study.compares_methods:
        names = varied_fields(study.records.trials)
        return {name: trial[name] for name in names if trial[name] is not None and name not in (STUDENT, *_IN_METHOD)}
    published: dict[str, Any] = {}
    for each in study.plan.get("compared", []):
        own = each.get("fields", {})
        if own.get("method") == trial["method"] and bool(own.get("adapter")) == bool(trial.get("adapter")):
            published = own
    tuned = next((each.varied for each in configs if each.config_id == trial["config_id"]), {})
    fields = {**published, **tuned}
    return {name: value for name, value in fields.items() if value is not None and name not in (STUDENT, *_IN_METHOD)}
