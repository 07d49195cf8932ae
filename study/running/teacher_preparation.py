"""Preparation of a study's teacher by a Ray task before the trials. Training is displayed and can be stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import ray

from study.cli.progress import StudyProgress
from study.plan.plan import StudyPlan
from trainables.display.numbers import NETWORK_PLACES, format_number
from trainables.process.errors import StudyError
from trainables.spec.trial import TrialConfig

if TYPE_CHECKING:
    from trainables.tune.tasks import PreparedTeacher

_RETRIES: Final = 2  # a retried training resumes from the checkpoint
_SECONDS_BETWEEN_LOOKS: Final = 0.25
_PROGRESS_FILE: Final = "teacher_progress.json"


def prepare_study_teacher(
    plan: StudyPlan, trial: TrialConfig, progress: StudyProgress, *, stopped: Callable[[], bool]
) -> "PreparedTeacher | None":
    """Find or train a teacher of the study.

    Args:
        plan: the study.
        trial: a trial config with this teacher, from `plan.teachers`.
        progress: progress display for the user.
        stopped: returns whether to end now.

    Returns:
        The teacher, or None if the study must end first. A stopped training resumes together with the study.

    Raises:
        StudyError: the teacher could not be prepared.
    """
    from trainables.tune.tasks import prepare_teacher

    task = ray.remote(num_cpus=1, num_gpus=min(1.0, plan.gpus_per_trial), max_retries=_RETRIES)(prepare_teacher)
    data_root = str(plan.data_root) if plan.data_root is not None else None
    config = trial.model_dump(mode="json")
    told = plan.directory.absolute() / _PROGRESS_FILE
    running = task.remote(config, data_root, str(plan.teachers_folder), str(told))
    try:
        with progress.counting("teacher epochs", plan.base.teacher_epochs or 1) as changed:
            while not ray.wait([running], timeout=_SECONDS_BETWEEN_LOOKS)[0]:
                if stopped():
                    ray.cancel(running, force=True)  # checkpoints are written atomically
                    return None
                _show(told, changed)
        prepared: PreparedTeacher = ray.get(running)
    except ray.exceptions.RayTaskError as error:
        raise StudyError(f"the teacher could not be prepared: {error.cause}") from None
    except ray.exceptions.RayError as error:
        raise StudyError(f"the teacher could not be prepared: {type(error).__name__}: {error}") from None
    finally:
        told.unlink(missing_ok=True)
    for note in prepared.notes:
        progress.say(note)
    return prepared


def _show(told: Path, changed: Callable[[int, str], None]) -> None:
    try:
        found = json.loads(told.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # no progress yet, or the task runs on a node with another file system
    changed(found["epoch"], f"val accuracy {format_number(found['accuracy'], NETWORK_PLACES)}")
