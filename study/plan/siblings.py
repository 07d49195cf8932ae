"""Other studies with the same dataset and output folder: repeated seeds, and test split readings.

All randomness in a trial comes from the study seed and the replicate number. Two studies with one seed therefore share
batches, and initial weights for equal students, so their results are not independent. All studies of a dataset share
one test split. With every confirmation, it becomes a little more like a validation split.
"""

import json
import os
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import pyarrow as pa
import pyarrow.compute as pc

from study.plan.folder import PLAN_FILE
from study.plan.plan import StudyPlan
from study.records import DamagedRecordsError, read_trials
from trainables.display.numbers import counted, listed

_MOST_NAMED: Final = 5
# Study file with the test split readings after the confirmation, one JSON object per line.
_READINGS: Final = "test_readings.jsonl"


class Sibling(NamedTuple):
    """Study with the same dataset and output folder.

    Args:
        name: study name.
        seed: study seed.
    """

    name: str
    seed: int


class Readings(NamedTuple):
    """Readings of a dataset's test split by the studies in an output folder.

    Args:
        trials: number of trials with a test split reading.
        studies: studies with at least one such trial.
        unreadable: studies with damaged records, which are not counted.
        again: number of further readings with the students from these trials, for example for an int8 program.
    """

    trials: int
    studies: tuple[str, ...]
    unreadable: tuple[str, ...]
    again: int = 0


def siblings(plan: StudyPlan) -> list[Sibling]:
    """Return the other studies with the same dataset in the plan's output folder, by name.

    Folders with an unreadable plan are left out, because they cannot be distinguished from other files.
    """
    found = []
    for path in sorted(plan.output_dir.glob(f"*/{PLAN_FILE}")):
        content = _read(path)
        base = content.get("base")
        if path.parent.name == plan.name or not isinstance(base, dict) or base.get("dataset") != plan.base.dataset:
            continue
        seed = content.get("seed", 0)
        if isinstance(seed, int):
            found.append(Sibling(path.parent.name, seed))
    return found


def _read(path: Path) -> Mapping[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def repeated_seed_note(plan: StudyPlan) -> str | None:
    """Return a note with an unused seed if another study has the same dataset and seed; else None."""
    others = siblings(plan)
    same = [each.name for each in others if each.seed == plan.seed]
    if not same:
        return None
    used = {plan.seed, *(each.seed for each in others)}
    free = next(seed for seed in range(len(used) + 1) if seed not in used)
    return (
        f"Seeds repeat: {_named(same)} in this folder used seed {plan.seed} on {plan.base.dataset} too. Repetitions "
        "with the same number share batches, and first weights for equal students, so the results are not independent "
        f"evidence. --seed {free} is unused."
    )


def sibling_notes(plan: StudyPlan) -> list[str]:
    """Return the notes on repeated seeds and test split readings, as far as there are any."""
    return [note for note in (repeated_seed_note(plan), readings_note(plan)) if note is not None]


def readings(plan: StudyPlan) -> Readings:
    """Count the trials in the plan's output folder that read the dataset's test split, including this study."""
    trials, again, studies, unreadable = 0, 0, [], []
    for name in sorted({plan.name, *(each.name for each in siblings(plan))}):
        again += _recorded_readings(plan.output_dir / name)
        try:
            number = _readings_of(read_trials(plan.output_dir / name))
        except FileNotFoundError:  # no trial has ended
            continue
        except DamagedRecordsError:
            unreadable.append(name)
            continue
        trials += number
        studies += [name] if number else []
    return Readings(trials, tuple(studies), tuple(unreadable), again)


def record_reading(plan: StudyPlan, what: str, trial_ids: Sequence[str]) -> None:
    """Record further test split readings by students of confirmed trials. Call this before the evaluation.

    Args:
        plan: the study.
        what: command that reads the test split.
        trial_ids: trials with an evaluated student.
    """
    line = json.dumps({"time": time.time(), "by": what, "trial_ids": list(trial_ids)}) + "\n"
    with (plan.directory / _READINGS).open("a", encoding="utf-8") as file:
        file.write(line)
        file.flush()
        os.fsync(file.fileno())


def _recorded_readings(directory: Path) -> int:
    """Count a study's further readings; a damaged line counts as one."""
    try:
        lines = (directory / _READINGS).read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return 0
    return sum(map(_readings_in, lines))


def _readings_in(line: str) -> int:
    try:
        trial_ids = json.loads(line)["trial_ids"]
    except (ValueError, KeyError, TypeError):
        return 1
    return len(trial_ids) if isinstance(trial_ids, list) else 1


def _readings_of(trials: pa.Table) -> int:
    """Count a study's trials with a measure on the test split."""
    measures = [name for name in trials.column_names if name.startswith("test/")]
    read = pa.array([False] * trials.num_rows, pa.bool_())
    for name in measures:
        read = pc.or_(read, pc.is_valid(trials[name]))
    return int(pc.sum(read).as_py() or 0)


def readings_note(plan: StudyPlan) -> str | None:
    """Return a sentence on how often the test split was read from this output folder; None if never."""
    found = readings(plan)
    damaged = (
        f" The records of {_named(found.unreadable)} cannot be read and are not counted." if found.unreadable else ""
    )
    if not found.trials:
        return damaged.strip() or None
    several = (
        " Results of earlier studies may have influenced later ones, so the split is no longer untouched."
        if len(found.studies) > 1
        else ""
    )
    again = f", and {counted(found.again, 'time')} more with their students for int8 programs" if found.again else ""
    of_studies = "1 study" if len(found.studies) == 1 else f"{len(found.studies)} studies"
    return (
        f"The test split of {plan.base.dataset} was read by {counted(found.trials, 'trial')} of {of_studies} in this "
        f"folder ({_named(found.studies)}){again}.{several}{damaged}"
    )


def _named(names: Sequence[str]) -> str:
    more = [f"{len(names) - _MOST_NAMED} more"] if len(names) > _MOST_NAMED else []
    return listed([*names[:_MOST_NAMED], *more])
