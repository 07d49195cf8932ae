"""Teacher preparation before the trials. Training is displayed and can be stopped."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from study.cli.progress import StudyProgress
from study.plan.plan import StudyPlan
from study.running.executor import Executor
from study.running.task_errors import TaskFailedError, TaskLostError, on_node
from trainables.display.numbers import NETWORK_PLACES, format_number
from trainables.process.errors import StudyError
from trainables.spec.trial import TrialConfig
from trainables.storage.files import missing_folders, remove_empty

if TYPE_CHECKING:
    from trainables.tune.reports import PreparedTeacher


@contextmanager
def teacher_ahead(plan: StudyPlan, executor: Executor) -> Iterator[None]:
    """Train the first teacher in the background during the block, if the executor can. A failed block leaves no files.

    Args:
        plan: the study. A given teacher is not prepared here.
        executor: computes the study.
    """
    trial = next(iter(plan.teachers.values()), None)
    if trial is None or trial.teacher_digest:
        yield
        return
    created = missing_folders(plan.teachers_folder)
    executor.begin_teacher(trial.model_dump(mode="json"), _data_root(plan), str(plan.teachers_folder))
    try:
        yield
    except BaseException:
        executor.end_teacher()
        if plan.teachers_folder in created:
            _remove_begun(plan.teachers_folder)
            remove_empty(created)
        raise


def _remove_begun(folder: Path) -> None:
    """Remove the files of one teacher. A folder with several teachers also belongs to other studies."""
    files = list(folder.glob("*"))
    if len({path.name.lstrip(".").partition(".")[0] for path in files}) == 1:
        for path in files:
            path.unlink(missing_ok=True)


def _data_root(plan: StudyPlan) -> str | None:
    return str(plan.data_root) if plan.data_root is not None else None


def prepare_study_teacher(
    executor: Executor, plan: StudyPlan, trial: TrialConfig, progress: StudyProgress
) -> "PreparedTeacher | None":
    """Find or train a teacher for the study.

    Args:
        executor: computes the study.
        plan: the study.
        trial: a trial config with this teacher, from `plan.teachers`.
        progress: progress display for the user.

    Returns:
        The teacher, or None if the study must end first. A stopped training resumes together with the study.

    Raises:
        StudyError: the teacher could not be prepared.
    """
    try:
        with progress.counting("teacher epochs", plan.base.teacher_epochs or 1) as changed:
            prepared = executor.prepare_teacher(
                trial.model_dump(mode="json"),
                _data_root(plan),
                str(plan.teachers_folder),
                lambda epoch, accuracy: changed(epoch, f"val accuracy {format_number(accuracy, NETWORK_PLACES)}"),
            )
    except (TaskFailedError, TaskLostError) as error:
        raise StudyError(f"the teacher could not be prepared{on_node(error)}: {error}") from None
    for note in prepared.notes if prepared is not None else ():
        progress.say(note)
    return prepared
