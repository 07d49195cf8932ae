"""Executor in worker processes of this machine, without Ray.

Trials equal Ray's trials bit for bit, because they run the same code with the same threads. A study may begin with one
executor and continue with another. Workers are forked from one process with all imports, so a worker starts in
milliseconds, and a pack of trials takes one process.

A worker that dies loses the work since the last checkpoint: its trials continue in another worker. A worker that hangs
is killed after --trial-timeout. If the study's process dies, the workers end.
"""

import itertools
import math
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager, suppress
from typing import TYPE_CHECKING, Any, Final

from study.cli.progress import StudyProgress
from study.ledger.entry import TIMED_OUT
from study.plan.executor import packs_by_default
from study.plan.gpus import AUTO
from study.plan.plan import StudyPlan
from study.plan.user_code import sources_in
from study.running.executor import ShowTeacher, TrialsToRun
from study.running.gpus import GpuChoice, given_choice, without_gpus
from study.running.silence import Silence
from study.running.stop import Stop
from study.running.teacher_fill import SECONDS_PER_TASK
from study.running.template import template_of
from study.running.trial_storage import TrialStorage, life_folder
from study.running.workers import WorkerDiedError, Workers, error_of, ready, receive, send
from study.search.packs import MOST_PACKED, Upcoming, size_of_group
from study.search.rungs import Rungs
from study.search.searcher import StudySearch
from trainables.process.cores import cores_at_once
from trainables.process.errors import StudyError
from trainables.process.forks import Fork

if TYPE_CHECKING:
    from trainables.teacher_outputs.shard import Shard
    from trainables.tune.reports import FillReport, PreparedTeacher

_SECONDS_BETWEEN_LOOKS: Final = 0.1


@contextmanager
def executor_on_processes(plan: StudyPlan, progress: StudyProgress, stop: Stop) -> Iterator["ProcessExecutor"]:
    """Yield an executor with worker processes. On exit, all workers end.

    Args:
        plan: the study.
        progress: progress display for the user.
        stop: stopping condition.
    """
    slots = slots_of(plan)
    progress.say(f"running in {slots} worker process{'' if slots == 1 else 'es'}")
    with closing(Workers(template_of(plan), stop)) as workers:
        yield ProcessExecutor(plan, progress, stop, workers)


def slots_of(plan: StudyPlan) -> int:
    """Return the number of workers that compute at once, at least one."""
    fits = max(1, math.floor(cores_at_once() / plan.cpus_per_trial + 1e-9))
    return min(fits, plan.max_concurrent or fits)


class ProcessExecutor:
    """Computes a study in worker processes; see `study.running.executor.Executor`.

    Args:
        plan: the study.
        progress: progress display for the user.
        stop: stopping condition.
        workers: the worker processes.
    """

    def __init__(self, plan: StudyPlan, progress: StudyProgress, stop: Stop, workers: Workers) -> None:
        self._plan = plan
        self._progress = progress
        self._stop = stop
        self._workers = workers
        self._begun: tuple[dict[str, Any], Fork] | None = None

    def check_resources(self) -> None:
        """Check that the machine has the cores of one trial."""
        asked, found = self._plan.cpus_per_trial, cores_at_once()
        if asked > found:
            raise StudyError(f"a trial asks for {asked:g} CPU and this machine has {found:g}: lower --cpus-per-trial")

    def choose_gpus(self) -> GpuChoice:
        """Return no GPUs. A plan with GPUs runs on Ray."""
        if self._plan.gpus_per_trial == AUTO:
            return without_gpus()
        from trainables.process.gpu import count_nvidia_gpus

        return given_choice(self._plan, self._plan.gpus_per_trial, count_nvidia_gpus())

    def dataset_digest(self, config: dict[str, Any], data_root: str | None, folder: str) -> str | None:
        """Return the data digest, or None if stopped."""
        code = sources_in(self._plan)
        digest: str | None = self._workers.call("dataset_digest", config, data_root, folder, user_code=code)
        return digest

    def begin_teacher(self, config: dict[str, Any], data_root: str | None, folder: str) -> None:
        """Start preparing a teacher in the background. `prepare_teacher` waits for the result."""
        code = sources_in(self._plan)
        self._begun = config, self._workers.begin("prepare_teacher", config, data_root, folder, user_code=code)

    def end_teacher(self) -> None:
        """End the preparation started by `begin_teacher`."""
        if self._begun is not None:
            self._workers.end(self._begun[1])
            self._begun = None

    def prepare_teacher(
        self, config: dict[str, Any], data_root: str | None, folder: str, show: ShowTeacher
    ) -> "PreparedTeacher | None":
        """Return a teacher, or None if stopped. A training whose worker dies resumes from the checkpoint."""
        prepared: PreparedTeacher | None
        (begun, worker), self._begun = self._begun or (None, None), None
        if worker is not None and begun == config:
            with suppress(WorkerDiedError):  # again below
                prepared = self._workers.finish(worker, lambda heard: show(*heard))
                return prepared
        prepared = self._workers.call(
            "prepare_teacher", config, data_root, folder, heard=lambda heard: show(*heard),
            user_code=sources_in(self._plan),
        )  # fmt: skip
        return prepared

    def wrap_secrets(self, outputs: dict[str, Any]) -> dict[str, Any]:
        """Return the settings unchanged. They are sent to the workers and written nowhere."""
        return outputs

    def share(self, value: Any) -> Any:
        """Return the value unchanged."""
        return value

    def fill_tasks(self) -> "ProcessFillTasks":
        """Return tasks for filling teacher outputs. As many tasks as trials run at once."""
        return ProcessFillTasks(self._workers, slots_of(self._plan), self._stop)

    def run_trials(self, trials: TrialsToRun) -> None:
        """Run all trials, until none is left or the study stops."""
        packed = self._pack_size(trials.settings)
        if self._stop.stop_all():
            return
        with closing(TrialStorage(self._plan)) as storage:
            Running(self._plan, trials, storage, self._workers, self._progress, self._stop, packed=packed).run()

    def _pack_size(self, settings: dict[str, Any]) -> int:
        if isinstance(self._plan.pack, int):
            return self._plan.pack
        if not packs_by_default(self._plan):
            return 1
        config = self._plan.example_config.model_dump(mode="json")
        size: int = self._workers.call("pack_size", {**settings, "config": config}, MOST_PACKED) or 1
        return size


class Job:
    """Trials computed by one worker.

    Args:
        worker: the worker process.
        trials: the executor's number of each trial that has not ended, by trial identifier.
    """

    def __init__(self, worker: Fork, trials: dict[str, str]) -> None:
        self.worker = worker
        self.trials = trials
        self.stopped: set[str] = set()


class Running:
    """All trials of a run: hands trials to workers, and receives the reports.

    Args:
        plan: the study.
        trials: trials to run.
        storage: checkpoints.
        workers: worker processes.
        progress: progress display for the user.
        stop: stopping condition.
        packed: largest number of trials in a pack.
    """

    def __init__(
        self, plan: StudyPlan, trials: TrialsToRun, storage: TrialStorage, workers: Workers, progress: StudyProgress,
        stop: Stop, *, packed: int,
    ) -> None:  # fmt: skip
        self._plan = plan
        self._ledger = trials.ledger
        self._recorder = trials.recorder
        self._storage = storage
        self._workers = workers
        self._progress = progress
        self._stop = stop
        self._packed = packed
        self._slots = slots_of(plan)
        self._numbers = map(str, itertools.count())
        self._jobs: dict[Fork, Job] = {}
        self._rungs = Rungs(trials.ledger) if plan.scheduler == "asha" else None
        self._silence: Silence[Fork] | None = None if plan.trial_timeout is None else Silence(plan.trial_timeout)
        self._search = StudySearch(trials.ledger, trials.settings, lambda entry: storage.newest_of(entry.trial_id))
        for entry in trials.ledger.unfinished:  # a storage without an answer ends the study before the first trial
            storage.checkpoints_of(entry.trial_id)

    def run(self) -> None:
        """Run until no trial is left, or the study stops. Running trials then end with their workers."""
        while not self._stop.stop_all():
            self._hand_out()
            if not self._jobs:
                return
            for worker in ready(list(self._jobs), _SECONDS_BETWEEN_LOOKS):
                self._receive(self._jobs[worker])
            self._end_silent()

    def _hand_out(self) -> None:
        while len(self._jobs) < self._slots:
            upcoming = self._search.upcoming()
            size = 1 if upcoming is None else self._size_of_group(upcoming)
            settings: dict[str, dict[str, Any]] = {}
            for _ in range(size):
                number = next(self._numbers)
                each = self._search.suggest(number)
                if not isinstance(each, dict):
                    break
                settings[number] = each
            if not settings:
                return
            self._start(settings, upcoming)

    def _size_of_group(self, upcoming: Upcoming) -> int:
        given = isinstance(self._plan.pack, int)
        return size_of_group(upcoming, packed=self._packed, workers=self._slots, given=given)

    def _start(self, settings: dict[str, dict[str, Any]], upcoming: Upcoming | None) -> None:
        trial_ids = {each["trial_id"]: number for number, each in settings.items()}
        members: Sequence[str] = upcoming.pack if upcoming is not None and upcoming.pack else [*trial_ids]
        if len(members) > 1 and not (upcoming and upcoming.pack):
            self._ledger.record_pack(members)
        by_id = {each["trial_id"]: each for each in settings.values()}
        sent = []
        for trial_id in members:
            entry = self._ledger.entries.get(trial_id)
            if entry is None:  # a line lost from the journal
                continue
            each = by_id.get(trial_id) or {**self._search.settings_of(entry), "has_ended": True, "student_path": None}
            folder = self._storage.folder_of(life_folder(trial_id, each["life"]))
            sent.append({**each, "folder": folder})
        worker = self._workers.take()
        self._jobs[worker] = Job(worker, trial_ids)
        if self._silence is not None:
            self._silence.begin(worker)
        send(worker, ("trials", (sent, self._rungs is not None)))
        for trial_id in trial_ids:
            self._recorder.started(trial_id)

    def _receive(self, job: Job) -> None:
        message = receive(job.worker)
        if message is None:
            self._lost(job)
            return
        kind, content = message
        if kind == "report":
            self._report(job, *content)
        elif kind == "wait":
            send(job.worker, job.stopped)
        elif kind == "saved":
            self._storage.keep_newest(content)
        else:
            if kind == "failed":  # an error outside of the trials
                for trial_id in job.trials:
                    self._search.give_up(trial_id, f"{error_of(content)} ({content[2]})")
            del self._jobs[job.worker]
            self._end_silence(job)
            self._workers.give_back(job.worker)
            self._died(job)

    def _report(self, job: Job, trial_id: str, result: dict[str, Any]) -> None:
        if self._silence is not None:
            self._silence.begin(job.worker)
        if trial_id not in job.trials:  # stopped by ASHA a moment ago
            return
        ends = self._ends(trial_id, result)
        self._recorder.reported(trial_id, result)
        if ends:
            job.stopped.add(trial_id)
            self._search.on_trial_complete(job.trials.pop(trial_id), result)
            self._recorder.ended(trial_id)
            self._storage.clear(self._storage.folder_of(trial_id))

    def _ends(self, trial_id: str, result: dict[str, Any]) -> bool:
        """Return whether a result is the last one, also because ASHA stops the trial."""
        rungs = self._rungs if self._ledger.entries[trial_id].stage == "search" else None
        if rungs is None or result.get("failed"):
            return bool(result["done"])
        continues = rungs.enter(trial_id, result["epoch"], result[self._plan.objective])
        return bool(result["done"]) or not continues

    def _end_silent(self) -> None:
        if self._silence is None:
            return
        for worker in self._silence.exceeded():
            job = self._jobs[worker]
            reason = (
                f"{TIMED_OUT} {self._plan.trial_timeout:g} s without a report (--trial-timeout); its process was ended"
            )
            for trial_id in job.trials:
                self._search.give_up(trial_id, reason)
            self._lost(job)

    def _lost(self, job: Job) -> None:
        del self._jobs[job.worker]
        self._end_silence(job)
        self._workers.end(job.worker)
        self._died(job)

    def _died(self, job: Job) -> None:
        """Let the trials without an end fail or continue in another worker."""
        for trial_id, number in job.trials.items():
            self._search.on_trial_complete(number, error=True)
            if self._recorder.ended(trial_id):
                self._storage.clear(self._storage.folder_of(trial_id))
            else:
                self._progress.say(f"the process of {trial_id} died; another goes on with it")

    def _end_silence(self, job: Job) -> None:
        if self._silence is not None:
            self._silence.end(job.worker)


class ProcessFillTasks:
    """Tasks for filling teacher outputs in worker processes; see `study.running.teacher_fill.FillTasks`.

    Args:
        workers: worker processes.
        slots: number of tasks running at once.
        stop: stopping condition.
    """

    seconds = SECONDS_PER_TASK

    def __init__(self, workers: Workers, slots: int, stop: Stop) -> None:
        self._workers = workers
        self._slots = slots
        self._stop = stop

    def slots(self) -> int:
        """Return the number of tasks running at once."""
        return self._slots

    def start(self, settings: dict[str, Any], shards: "list[Shard] | None") -> Fork:
        """Start a task. The worker is the handle."""
        worker = self._workers.take()
        send(worker, ("task", ("fill_teacher_outputs", (settings, shards), {})))
        return worker

    def done(self, running: Sequence[Fork]) -> Sequence[Fork]:
        """Return finished tasks, after waiting for a moment."""
        return ready(running, _SECONDS_BETWEEN_LOOKS)

    def report(self, task: Fork) -> "FillReport":
        """Return a finished task's result."""
        return self._workers.result(task)

    def cancel(self, task: Fork) -> None:
        """End a task."""
        self._workers.end(task)
