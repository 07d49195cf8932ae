"""Health checks for a study: one line per problem, with a command to address it.

The commands are the study's start command with other options. They run a new study, except those that resume.
"""

import math
import shlex
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa

from analysis.questions.adapter import LEAST_SHIFT, adapter_warnings
from analysis.questions.collapse import collapses
from analysis.questions.importance import RangeWarning
from analysis.questions.wider import wider_argument
from analysis.reading.trials import CONFIRM, REPEATED, SEARCH, Split, numbers, objective, select, trial_scores
from analysis.report.folder import StudyFolder
from trainables.data.splits import small_validation
from trainables.display.numbers import counted, format_number
from trainables.spec.modality import samples_of

_PREFIX: Final[Mapping[Split, str]] = {"validation": "val", "test": "test"}
_NON_FINITE: Final = "NonFiniteLossError"
_MOST_NAMED: Final = 3
_LOWER: Final = 3.0  # factor for a lower learning rate
_HIGHER: Final = 10.0  # factor for a higher adapter rate
_ROUNDING: Final = 1e-9


@dataclass(frozen=True)
class Check:
    """Problem in a study.

    Args:
        text: the problem in one line.
        command: command to address it; empty if the study's start command is unknown.
    """

    text: str
    command: str


def health_checks(study: StudyFolder, names: Mapping[str, str], ranges: Sequence[RangeWarning]) -> list[Check]:
    """Return the problems in a study, worst first; empty if there are none.

    Args:
        study: the study.
        names: names by identifier, for the repeated and confirmed configs.
        ranges: searched parameters with the best values at a bound.
    """
    found: list[Check] = []
    checks: tuple[Callable[[], list[Check]], ...] = (
        lambda: _failed(study),
        lambda: _constant(study, names),
        lambda: _collapsed(study, names),
        lambda: _weak_teacher(study),
        lambda: _still_adapter(study),
        lambda: _bounds(study, ranges),
        lambda: _few_samples(study),
        lambda: _idle_gpus(study),
    )
    for check in checks:
        found += check()
    return found


def _failed(study: StudyFolder) -> list[Check]:
    errors = [str(error or "") for error in select(study.records.trials, statuses=["failed"])["error"].to_pylist()]
    diverged = sum(_NON_FINITE in error for error in errors)
    found = []
    if diverged:
        text = f"{counted(diverged, 'trial')} diverged: the loss was not finite."
        found.append(Check(text, _slower(study)))
    if len(errors) > diverged:
        resume = shlex.join(["python", "-m", "study.launch", "--resume", study.name, *study.where, "--retry-failed"])
        text = f"{counted(len(errors) - diverged, 'trial')} failed; the errors are listed below."
        found.append(Check(text, resume if study.has_journal else ""))
    return found


def _constant(study: StudyFolder, names: Mapping[str, str]) -> list[Check]:
    found = []
    splits: tuple[tuple[Split, tuple[str, ...]], ...] = (("validation", REPEATED), ("test", (CONFIRM,)))
    for split, stages in splits:
        trials = select(study.records.trials, stages=stages)
        constant = _fact(trials, f"data/{_PREFIX[split]}_constant_score")
        scores, ids = trial_scores(trials, split), np.array(trials["config_id"].to_pylist())
        below = []
        for config_id in dict.fromkeys(ids.tolist()):
            own = scores[(ids == config_id) & np.isfinite(scores)]
            if len(own) and own.mean() <= constant + _ROUNDING:
                below.append(f"{names.get(config_id, config_id)} {format_number(float(own.mean()))}")
        if below:
            text = f"Not above the majority class ({format_number(constant)}) on the {split} split: {_few(below)}."
            found.append(Check(text, _longer(study)))
    return found


def _collapsed(study: StudyFolder, names: Mapping[str, str]) -> list[Check]:
    splits: tuple[Split, ...] = ("validation", "test")
    found = []
    for split in splits:
        named = [
            f"{names[each.config_id]} ({each.collapsed} of {each.share.n})"
            for each in collapses(study.records.trials, split)
            if each.config_id in names
        ]
        if named:
            found.append(Check(f"Collapsed seeds on the {split} split: {_few(named)}.", _slower(study)))
    return found


def _weak_teacher(study: StudyFolder) -> list[Check]:
    trials = select(study.records.trials, stages=[*REPEATED, SEARCH])
    name = "val/accuracy_teacher"
    if name not in trials.column_names or objective(trials) != "accuracy":
        return []
    teacher, students = numbers(trials, name), trial_scores(trials)
    both = np.isfinite(teacher) & np.isfinite(students)
    better = int((students[both] > teacher[both]).sum())
    if not both.any() or better <= int(both.sum()) / 2:
        return []
    text = (
        f"The teacher ({format_number(float(teacher[both].mean()))}) is worse than {better} of {int(both.sum())} "
        "students on the validation split."
    )
    epochs = _number(study, "--teacher-epochs") or study.plan.get("base", {}).get("teacher_epochs") or 0
    return [Check(text, changed_command(study, {"--teacher-epochs": f"{2 * int(epochs)}"}) if epochs else "")]


def _still_adapter(study: StudyFolder) -> list[Check]:
    still = adapter_warnings(study.records.trials)
    if not still:
        return []
    rate = study.plan.get("base", {}).get("adapter_learning_rate")
    command = changed_command(study, {}, f"adapter_learning_rate={_HIGHER * rate:g}") if rate else ""
    counts = [text.split(":")[0].removeprefix("The adapter did not move in ") for text in still]
    return [Check(f"The adapter did not move (less than {LEAST_SHIFT:g} nats) in {_few(counts)}.", command)]


def _bounds(study: StudyFolder, ranges: Sequence[RangeWarning]) -> list[Check]:
    known = {each.name: each for each in study.searched}
    found = []
    for each in ranges:
        argument = wider_argument(known[each.parameter], each.end)
        bound = known[each.parameter].low if each.end == "low" else known[each.parameter].high
        text = f"The best values of {each.parameter.replace('_', ' ')} lie at the {each.end} bound, {bound:g}."
        command = changed_command(study, {}, wider=argument) if argument is not None else ""
        found.append(Check(text, command))
    return found


def _few_samples(study: StudyFolder) -> list[Check]:
    trials = study.records.trials
    samples = _fact(trials, "data/val_samples")
    what = samples_of(next((each for each in trials["dataset"].to_pylist() if each), "")) if trials.num_rows else ""
    if math.isnan(samples) or small_validation(int(samples), what) is None:
        return []
    text = f"Few validation {what}: {int(samples)}, so one is worth {100 / samples:.2g} points of accuracy."
    wanted = {"--confirm": "2", "--splits": "3"} if _number(study, "--confirm") is None else {"--splits": "3"}
    return [Check(text, changed_command(study, wanted))]


def _idle_gpus(study: StudyFolder) -> list[Check]:
    idle = (study.summary.get("gpus") or {}).get("idle", 0)
    if not idle:
        return []
    were = "was" if idle == 1 else "were"
    if study.summary["gpus"]["per_trial"]:
        return [Check(f"{counted(idle, 'GPU')} {were} idle, because the nodes have too few cores.", "")]
    text = f"{counted(idle, 'GPU')} {were} idle: all trials ran on CPUs."
    return [Check(text, changed_command(study, {"--gpus-per-trial": "auto"}))]


def _slower(study: StudyFolder) -> str:
    """Return the command with a lower learning rate, or with a lower upper bound if the rate is searched."""
    searched = next((each for each in study.searched if each.name == "student_learning_rate" and each.high), None)
    if searched is not None and searched.low is not None and searched.high is not None:
        high = max(searched.high / _LOWER, 2 * searched.low)
        bounds = f"student_learning_rate={searched.low:g}:{high:g}{':log' if searched.log else ''}"
        return changed_command(study, {}, wider=f"--search {bounds}")
    rate = study.plan.get("base", {}).get("student_learning_rate")
    return changed_command(study, {}, f"student_learning_rate={rate / _LOWER:.3g}") if rate else ""


def _longer(study: StudyFolder) -> str:
    epochs = study.plan.get("base", {}).get("epochs")
    return changed_command(study, {"--epochs": f"{2 * int(epochs)}"}) if epochs else ""


def changed_command(
    study: StudyFolder, options: Mapping[str, str], held: str | None = None, *, wider: str | None = None
) -> str:
    """Return the study's start command with other options; empty if it is not known.

    Args:
        study: the study.
        options: option values by flag.
        held: `FIELD=VALUE` for `--set`.
        wider: argument `--search FIELD=BOUNDS`.
    """
    words = study.command_words
    if not words:
        return ""
    fields = [text.split("=")[0] for text in (held, (wider or "").removeprefix("--search ")) if text]
    kept: list[str] = []
    place = 0
    while place < len(words):
        value = words[place + 1] if place + 1 < len(words) else ""
        replaced = words[place] in options or words[place] == "--name"
        replaced |= words[place] in ("--set", "--search") and value.split("=")[0] in fields
        kept += [] if replaced else [words[place]]
        place += 2 if replaced else 1
    added = [word for pair in options.items() for word in pair]
    added += ["--set", held] if held else []
    return shlex.join([*kept, *added, *shlex.split(wider or "")])


def _number(study: StudyFolder, flag: str) -> int | None:
    words = study.command_words
    values = [words[place + 1] for place, word in enumerate(words[:-1]) if word == flag]
    return int(values[0]) if values and values[0].isdigit() else None


def _fact(trials: pa.Table, name: str) -> float:
    known = numbers(trials, name) if name in trials.column_names else np.array([])
    return float(np.nanmax(known)) if np.isfinite(known).any() else math.nan


def _few(names: Sequence[str]) -> str:
    more = f" and {len(names) - _MOST_NAMED} more" if len(names) > _MOST_NAMED else ""
    return ", ".join(names[:_MOST_NAMED]) + more
