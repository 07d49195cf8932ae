"""Teacher preparation before the trials. Training is displayed and can be stopped."""

from typing import TYPE_CHECKING

from study.cli.progress import StudyProgress
from study.plan.plan import StudyPlan
from study.running.executor import Executor
from study.running.task_errors import TaskFailedError, TaskLostError, on_node
from trainables.display.numbers import NETWORK_PLACES, format_number
from trainables.process.errors import StudyError
from trainables.spec.trial import TrialConfig

if TYPE_CHECKING:
    from trainables.tune.tasks import PreparedTeacher


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
    data_root = str(plan.data_root) if plan.data_root is not None else None
    try:
        with progress.counting("teacher epochs", plan.base.teacher_epochs or 1) as changed:
            prepared = executor.prepare_teacher(
                trial.model_dump(mode="json"),
                data_root,
                str(plan.teachers_folder),
                lambda epoch, accuracy: changed(epoch, f"val accuracy {format_number(accuracy, NETWORK_PLACES)}"),
            )
    except (TaskFailedError, TaskLostError) as error:
        raise StudyError(f"the teacher could not be prepared{on_node(error)}: {error}") from None
    for note in prepared.notes if prepared is not None else ():
        progress.say(note)
    return prepared
