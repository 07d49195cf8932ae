"""Interface between a study and the executor: Ray, or this process."""

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
    from trainables.tune.reports import PreparedTeacher

# (finished epochs, validation accuracy as a fraction)
ShowTeacher = Callable[[int, float], None]


@dataclass(frozen=True)
class TrialsToRun:
    """Everything an executor needs for a study's trials.

    Args:
        ledger: study ledger.
        settings: settings for every trial, in addition to the config.
        recorder: recorder for trials.
    """

    ledger: StudyLedger
    settings: dict[str, Any]
    recorder: TrialRecorder


class Executor(Protocol):
    """Computes all parts of a study, with progress, until the study is complete or `Stop` ends it.

    Args:
        plan: the study.
        progress: progress display for the user.
        stop: stopping condition.
    """

    def __init__(self, plan: StudyPlan, progress: StudyProgress, stop: Stop) -> None: ...

    def check_resources(self) -> None:
        """Check that at least one trial can run.

        Raises:
            StudyError: a trial can never run.
        """
        ...

    def choose_gpus(self) -> GpuChoice | None:
        """Choose the GPUs per trial for the rest of the run. Return None if stopped.

        Raises:
            StudyError: a trial does not fit on a GPU.
        """
        ...

    def dataset_digest(self, config: dict[str, Any], data_root: str | None, folder: str) -> str | None:
        """Return the data digest, or None if stopped; see `trainables.tune.tasks.dataset_digest`.

        Raises:
            TaskFailedError: the data cannot be read.
        """
        ...

    def begin_teacher(self, config: dict[str, Any], data_root: str | None, folder: str) -> None:
        """Start preparing a teacher in the background, if possible; see `prepare_teacher`."""
        ...

    def end_teacher(self) -> None:
        """End the preparation started by `begin_teacher`."""
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
        """Wrap the settings for teacher outputs, so secrets in a URI stay out of files."""
        ...

    def share(self, value: Any) -> Any:
        """Wrap a value for the settings of many trials; see `trainables.tune.settings.resolved`."""
        ...

    def fill_tasks(self) -> FillTasks:
        """Return tasks for filling teacher outputs."""
        ...

    def run_trials(self, trials: TrialsToRun) -> None:
        """Run all trials, until none is left or the study stops."""
        ...
