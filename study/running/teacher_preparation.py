"""A study's teacher, made ready by a Ray task before the trials begin; a training is shown, and can be stopped."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

import ray

from study.cli.progress import StudyProgress
from study.plan.plan import StudyPlan
from trainables.process.errors import StudyError
from trainables.spec.trial import TrialConfig

if TYPE_CHECKING:
    from trainables.tune.tasks import PreparedTeacher

_RETRIES: Final = 2  # a training goes on from its checkpoint then
_SECONDS_BETWEEN_LOOKS: Final = 0.25
_PROGRESS_FILE: Final = "teacher_progress.json"


def prepare_study_teacher(
    plan: StudyPlan, trial: TrialConfig, progress: StudyProgress, *, stopped: Callable[[], bool]
) -> "PreparedTeacher | None":
    """The teacher, found or trained.

    Args:
        plan: the study.
        trial: one that it teaches, of `plan.teachers`.
        progress: where a person sees how it goes.
        stopped: whether to end now.

    Returns:
        None if the study is to end first; a training then goes on when the study does.

    Raises:
        StudyError: it could not be prepared.
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
                    ray.cancel(running, force=True)  # its checkpoint appears whole or not at all
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
        return  # nothing yet, or a file system of another node
    changed(found["epoch"], f"val accuracy {found['accuracy']:.4f}")
