"""Interface between a study and what computes it: Ray, or this process."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from study.cli.progress import StudyProgress
from study.ledger.ledger import StudyLedger
from study.plan.plan import StudyPlan
from study.running.gpus import GpuChoice
from study.running.recorder import TrialRecorder
from study.running.stop import Stop
from study.running.teacher_fill import FillTasks

if TYPE_CHECKING:
    from trainables.tune.tasks import PreparedTeacher

# (finished epochs, validation accuracy as a fraction)
ShowTeacher = Callable[[int, float], None]


@dataclass(frozen=True)
class TrialsToRun:
    """All that an executor needs for the trials of a study.

    Args:
        ledger: study ledger.
        settings: settings of every trial, in addition to the config.
        recorder: recording of trials.
    """

    ledger: StudyLedger
    settings: dict[str, Any]
    recorder: TrialRecorder


class Executor(Protocol):
    """Computes the parts of a study, with progress, until the study ends or `Stop` ends it.

    Args:
        plan: the study.
        progress: progress display for the user.
        stop: stopping condition.
    """

    def __init__(self, plan: StudyPlan, progress: StudyProgress, stop: Stop) -> None: ...

    def check_resources(self) -> None:
        """Check that a trial can run at all.

        Raises:
            StudyError: a trial can never run.
        """
        ...

    def choose_gpus(self) -> GpuChoice | None:
        """Choose the GPUs of each trial, and use them for all that follows. Return None if stopped.

        Raises:
            StudyError: a trial does not fit on a GPU.
        """
        ...

    def dataset_digest(self, config: dict[str, Any], data_root: str | None, folder: str) -> str | None:
        """Return the digest of the data, or None if stopped; see `trainables.tune.tasks.dataset_digest`.

        Raises:
            TaskFailedError: the data cannot be read.
        """
        ...

    def prepare_teacher(
        self, config: dict[str, Any], data_root: str | None, folder: str, show: ShowTeacher
    ) -> "PreparedTeacher | None":
        """Return a teacher, or None if stopped; see `trainables.tune.tasks.prepare_teacher`.

        Raises:
            TaskFailedError: the teacher cannot be prepared.
        """
        ...

    def wrap_secrets(self, outputs: dict[str, Any]) -> Any:
        """Return settings of the teacher outputs such that secrets in a URI stay out of files."""
        ...

    def share(self, value: Any) -> Any:
        """Return a value such that the settings of many trials can hold it; see `trainables.tune.settings.resolved`."""
        ...

    def fill_tasks(self) -> FillTasks:
        """Return the tasks that fill teacher outputs."""
        ...

    def run_trials(self, trials: TrialsToRun) -> None:
        """Run all trials, until none is left or the study stops."""
        ...
