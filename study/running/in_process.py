"""Executor in this process, without Ray. The parts of a study run one after the other, and so do the trials.

For debuggers, notebooks and tests. Trials equal Ray's trials bit for bit, because they run the same code
(`trainables.tune.session`) with the same threads. They are recorded and stored in the same places. A study may begin
with one executor and continue with the other. If the process crashes, the study ends, while Ray would lose only one
trial. The study can then be resumed, and the trial continues from the checkpoint.
"""

import itertools
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Any, Final

from study.cli.progress import StudyProgress
from study.plan.gpus import AUTO
from study.plan.plan import StudyPlan
from study.running.executor import ShowTeacher, TrialsToRun
from study.running.gpus import GpuChoice, given_choice, whole_gpus, without_gpus
from study.running.stop import Stop
from study.running.task_errors import TaskFailedError
from study.running.trial_storage import TrialStorage
from study.search.rungs import Rungs
from study.search.searcher import StudySearch
from trainables.process.errors import StudyError
from trainables.process.gpu import count_gpus

if TYPE_CHECKING:
    from trainables.teacher_outputs.shard import Shard
    from trainables.tune.reports import FillReport, PreparedTeacher

_SECONDS_PER_FILL: Final = 1.0  # a stopped study waits until a fill ends


class _StoppedError(Exception):
    """Ends teacher training, because the study stops."""


@contextmanager
def executor_in_process(plan: StudyPlan, progress: StudyProgress, stop: Stop) -> Iterator["InProcessExecutor"]:
    """Yield an executor for this process. On exit, restore the number of threads and release the study's data."""
    from trainables.process.threads import restored_threads, use_one_thread
    from trainables.tune.cache import forget_loaded
    from trainables.tune.session import take_notes

    progress.say("running in this process, without Ray")
    with restored_threads():
        use_one_thread()
        forget_loaded()
        take_notes()
        try:
            yield InProcessExecutor(plan, progress, stop)
        finally:
            forget_loaded()


class InProcessExecutor:
    """Computes a study in this process; see `study.running.executor.Executor`."""

    def __init__(self, plan: StudyPlan, progress: StudyProgress, stop: Stop) -> None:
        self._plan = plan
        self._progress = progress
        self._stop = stop

    def check_resources(self) -> None:
        """Check for a GPU if trials need one."""
        asked, found = self._plan.gpus_per_trial, count_gpus()
        if asked != AUTO and asked > found:
            raise StudyError(f"a trial asks for {asked:g} GPU and this process has {found}: lower --gpus-per-trial")

    def choose_gpus(self) -> GpuChoice:
        """Return the GPUs per trial. Trials run one at a time, so `auto` means one GPU if available."""
        asked, found = self._plan.gpus_per_trial, count_gpus()
        if asked != AUTO:
            return given_choice(self._plan, asked, found)
        return whole_gpus(found, "this process runs one trial at a time") if found else without_gpus()

    def dataset_digest(self, config: dict[str, Any], data_root: str | None, folder: str) -> str | None:
        """Return the data digest."""
        from trainables.tune.tasks import dataset_digest

        try:
            return dataset_digest(config, data_root, folder)
        except Exception as error:
            raise TaskFailedError(error) from error

    def begin_teacher(self, config: dict[str, Any], data_root: str | None, folder: str) -> None:
        """Do nothing. The teacher is prepared by `prepare_teacher`."""

    def end_teacher(self) -> None:
        """Do nothing."""

    def prepare_teacher(
        self, config: dict[str, Any], data_root: str | None, folder: str, show: ShowTeacher
    ) -> "PreparedTeacher | None":
        """Return a teacher, or None if stopped. A training stops between two epochs."""
        from trainables.tune.tasks import prepare_teacher

        def show_or_stop(epoch: int, epochs: int, accuracy: float) -> None:
            show(epoch, accuracy)
            if self._stop.stop_all() and epoch < epochs:
                raise _StoppedError

        try:
            return prepare_teacher(config, data_root, folder, show_or_stop)
        except _StoppedError:
            return None
        except Exception as error:
            raise TaskFailedError(error) from error

    def wrap_secrets(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Return the settings unchanged. They stay in this process."""
        return outputs

    def share(self, value: Any) -> Any:
        """Return the value unchanged."""
        return value

    def fill_tasks(self) -> "InProcessFillTasks":
        """Return tasks for filling teacher outputs, one at a time."""
        return InProcessFillTasks()

    def run_trials(self, trials: TrialsToRun) -> None:
        """Run one trial after the other, until none is left or the study stops."""
        with closing(TrialStorage(self._plan)) as storage:
            search = StudySearch(
                trials.ledger,
                trials.settings,
                lambda entry: storage.checkpoints_of(entry.trial_id),
                lambda: 1,
            )
            rungs = Rungs(trials.ledger) if self._plan.scheduler == "asha" else None
            for number in itertools.count():
                settings = None if self._stop.stop_all() else search.suggest(str(number))
                if not isinstance(settings, dict):
                    return
                trial = _Trial(settings, trials, storage, rungs, self._stop)
                result = trial.run()
                if result is None:
                    return
                search.on_trial_complete(str(number), result)
                trials.recorder.ended(trial.trial_id)
                trial.clear()


class _Trial:
    """One trial in a study.

    Args:
        settings: trial settings; see `trainables.tune.trainable.DistillationTrainable`.
        trials: all trials in the study.
        storage: trial checkpoints.
        rungs: ASHA rungs, if the study stops trials early.
        stop: the study's stopping condition.
    """

    def __init__(
        self, settings: dict[str, Any], trials: TrialsToRun, storage: TrialStorage, rungs: Rungs | None, stop: Stop
    ) -> None:
        self.trial_id: str = settings["trial_id"]
        self._settings = settings
        self._objective = trials.ledger.plan.objective
        self._recorder = trials.recorder
        self._storage = storage
        self._rungs = rungs if settings["stage"] == "search" else None
        self._stop = stop
        self._saved = 0

    def run(self) -> dict[str, Any] | None:
        """Train until the trial ends. Return the last result, or None if the study stops first."""
        from trainables.tune.session import TrialSession, begin_run

        self._recorder.started(self.trial_id)
        session = TrialSession(self._settings, begin=begin_run)
        while True:
            result = session.step()
            ends = self._ends(result)
            self._recorder.reported(self.trial_id, result)
            if ends:
                return result
            if result["should_checkpoint"]:
                self._save(session)
            if self._stop.stop_all():
                return None

    def _ends(self, result: dict[str, Any]) -> bool:
        """Return whether a result is the last one, also because ASHA stops the trial."""
        if self._rungs is None or result.get("failed"):
            return bool(result["done"])
        continues = self._rungs.enter(self.trial_id, result["epoch"], result[self._objective])
        return bool(result["done"]) or not continues

    def _save(self, session: Any) -> None:
        """Write a checkpoint; on a write error, add a note and continue, because only time on a resume is lost."""
        from trainables.tune.session import note_unwritten_checkpoint

        folder = self._storage.new_checkpoint(self.trial_id, self._saved)
        try:
            session.save(folder)
        except OSError as error:
            note_unwritten_checkpoint(self.trial_id, error)
            return
        self._saved += 1
        self._storage.keep_newest(folder.as_posix())

    def clear(self) -> None:
        """Remove the ended trial's checkpoints."""
        self._storage.clear(self._storage.folder_of(self.trial_id))


class InProcessFillTasks:
    """Calls for filling teacher outputs, one after the other; see `study.running.teacher_fill.FillTasks`."""

    seconds = _SECONDS_PER_FILL

    def __init__(self) -> None:
        self._calls: dict[int, tuple[dict[str, Any], list[Shard] | None]] = {}
        self._number = itertools.count()

    def slots(self) -> int:
        """Return 1."""
        return 1

    def start(self, settings: dict[str, Any], shards: "list[Shard] | None") -> int:
        """Store a call for `report`."""
        number = next(self._number)
        self._calls[number] = settings, shards
        return number

    def done(self, running: Sequence[int]) -> Sequence[int]:
        """Return all calls."""
        return running

    def report(self, task: int) -> "FillReport":
        """Fill now, and return the result."""
        from trainables.tune.tasks import fill_teacher_outputs

        try:
            return fill_teacher_outputs(*self._calls.pop(task))
        except Exception as error:
            raise TaskFailedError(error) from error

    def cancel(self, task: int) -> None:
        """Forget a call."""
        self._calls.pop(task, None)
