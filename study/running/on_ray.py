"""Executor on Ray: trials by Ray Tune, other parts by Ray tasks."""

import gc
import json
import logging
import re
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from study.running.cluster import Slots, start_ray, stop_ray

# isort: split
import ray
from ray import tune

from study.cli.commands import resume_command
from study.cli.progress import StudyProgress
from study.ledger.ledger import StudyLedger
from study.plan.gpus import AUTO
from study.plan.plan import StudyPlan
from study.plan.travel import files_travel
from study.plan.user_code import sources_in
from study.running.callback import StudyCallback, TuneStopper
from study.running.cluster_watch import ClusterWatch, connected_cluster
from study.running.executor import ShowTeacher, TrialsToRun
from study.running.gpus import GpuChoice
from study.running.gpus_on_ray import choose_on_ray
from study.running.node_checks import check_nodes
from study.running.node_watch import NodeWatch
from study.running.resources import Packing
from study.running.stop import Stop
from study.running.task_errors import TaskFailedError, TaskLostError
from study.running.teacher_fill import SECONDS_PER_TASK
from study.running.travel import StudentCollector, files_of_given_teacher
from study.running.trial_storage import TrialStorage, life_folder
from study.running.watchdog import Watchdog
from study.search.schedulers import make_scheduler
from study.search.searcher import StudySearch
from study.search.tune_searcher import TuneSearcher
from trainables.process.errors import ClusterLostError
from trainables.spec.modality import is_text
from trainables.storage.uris import redact_place

if TYPE_CHECKING:
    from trainables.teacher_outputs.shard import Shard
    from trainables.tune.reports import FillReport, PreparedTeacher

_SECONDS_BETWEEN_LOOKS: Final = 0.25
_TEACHER_RETRIES: Final = 2  # a retried training resumes from the checkpoint
_FILL_RETRIES: Final = 3
_ADDRESS: Final = re.compile(r"\(pid=\d+, ip=([^,)\s]+)")
_PROGRESS_FILE: Final = "teacher_progress.json"


@contextmanager
def executor_on_ray(plan: StudyPlan, progress: StudyProgress, stop: Stop) -> Iterator["RayExecutor"]:
    """Connect Ray to the plan's cluster. Any error after losing the cluster becomes a `ClusterLostError`."""
    progress.say("starting Ray" if plan.address == "local" else f"connecting to Ray at {plan.address}")
    start_ray(plan.address, ship_code=plan.ship_code, modules=_modules_of(plan))

    def parting(lost: str) -> str:
        if not stop.start.has_begun:
            return f"{lost}. No work had begun, and nothing was written: start the study again as before"
        return f"{lost}. What ran up to then is kept; to go on:\n  {resume_command(plan)}"

    stop.watch = watch = ClusterWatch(
        connected_cluster(plan.address),
        lambda lost: progress.say(f"{lost}; ending the study"),
        last_words=stop.last_words,
        parting=parting,
        trouble=lambda: executor.trouble,
    )
    executor = RayExecutor(plan, progress, stop)
    try:
        yield executor
    except Exception:  # Ray raises various errors
        if watch.end() is None:
            raise
    finally:
        if watch.end() is None:
            # Tune leaves actor handles in reference cycles. An allocation in any thread may collect a handle after Ray
            # has stopped. This would end the whole process.
            gc.collect()
            stop_ray()
        else:  # Ray would wait for the lost processes
            watch.end_processes()
    if watch.lost is not None:
        raise ClusterLostError(parting(watch.lost))


def _modules_of(plan: StudyPlan) -> list[str]:
    """Return the modules imported by every trial because of the study's dataset."""
    dataset = plan.example_config.dataset
    if is_text(dataset):
        return ["trainables.data.text.dataset"]
    return ["trainables.data.digits" if dataset == "digits" else "trainables.data.from_files"]


class RayExecutor:
    """Computes a study on the cluster to which Ray is connected; see `study.running.executor.Executor`."""

    def __init__(self, plan: StudyPlan, progress: StudyProgress, stop: Stop) -> None:
        self._plan = plan
        self._progress = progress
        self._stop = stop
        self._nodes: NodeWatch | None = None

    @property
    def trouble(self) -> str | None:
        """A reason why the cluster cannot run the study's trials any more, or None."""
        return self._nodes.trouble if self._nodes is not None else None

    def check_resources(self) -> None:
        """On a local cluster, check that a trial fits. Other clusters may grow, so their nodes are checked."""
        plan = self._plan
        if plan.address != "local":
            check_nodes(plan)
        if plan.address == "local":
            gpus = 0.0 if plan.gpus_per_trial == AUTO else plan.gpus_per_trial
            Slots(cpus=plan.cpus_per_trial, gpus=gpus, at_most=None, workers=plan.workers_per_trial).check()

    def choose_gpus(self) -> GpuChoice | None:
        """Choose the GPUs per trial for the rest of the run. Return None if stopped."""
        choice = choose_on_ray(self._plan, self._progress, self._stop)
        if choice is not None:
            self._plan = self._plan.model_copy(update={"gpus_per_trial": choice.per_trial})
        return choice

    def dataset_digest(self, config: dict[str, Any], data_root: str | None, folder: str) -> str | None:
        """Return the data digest, or None if stopped."""
        from trainables.tune.ray_tasks import dataset_digest_on_node

        task: Any = ray.remote(num_cpus=1)(dataset_digest_on_node)
        given = files_of_given_teacher(self._plan) if files_travel(self._plan) else None
        digest: str | None = self._result_of(task.remote(config, data_root, folder, given, sources_in(self._plan)))
        return digest

    def begin_teacher(self, config: dict[str, Any], data_root: str | None, folder: str) -> None:
        """Do nothing. The teacher is prepared by `prepare_teacher`."""

    def end_teacher(self) -> None:
        """Do nothing."""

    def prepare_teacher(
        self, config: dict[str, Any], data_root: str | None, folder: str, show: ShowTeacher
    ) -> "PreparedTeacher | None":
        """Return a teacher, or None if stopped."""
        from trainables.tune.ray_tasks import prepare_teacher_on_node

        options: dict[str, Any] = {
            "num_cpus": 1,
            "num_gpus": min(1.0, _resolved(self._plan)),
            "max_retries": _TEACHER_RETRIES,
        }
        if files_travel(self._plan):
            return self._prepare_travelling_teacher(config, data_root, Path(folder), show, options)
        progress_file = self._plan.directory.absolute() / _PROGRESS_FILE
        task: Any = ray.remote(**options)(prepare_teacher_on_node)
        try:
            prepared: PreparedTeacher | None = self._result_of(
                task.remote(config, data_root, folder, str(progress_file), sources_in(self._plan)),
                lambda: _show(progress_file, show),
            )
        finally:
            progress_file.unlink(missing_ok=True)
        return prepared

    def _prepare_travelling_teacher(
        self, config: dict[str, Any], data_root: str | None, folder: Path, show: ShowTeacher, options: dict[str, Any]
    ) -> "PreparedTeacher | None":
        from trainables.tune.ray_tasks import Workplace, forget_progress, prepare_travelling_teacher, read_progress
        from trainables.tune.travel import unpack

        plan, key = self._plan, f"teacher-{uuid.uuid4().hex}"
        assert plan.storage_path is not None
        known = [path.name for path in folder.glob("*.safetensors")]
        workplace = Workplace(plan.storage_path, plan.study_id, known, files_of_given_teacher(plan), key)
        task: Any = ray.remote(**options)(prepare_travelling_teacher)

        def look() -> None:
            if (found := read_progress(key)) is not None:
                show(found["epoch"], found["accuracy"])

        try:
            # By reference, because the storage's URI may have secrets and a given teacher is large.
            done = self._result_of(task.remote(config, data_root, ray.put(workplace), sources_in(plan)), look)
        finally:
            forget_progress(key)
        if done is None:
            return None
        prepared: PreparedTeacher
        prepared, files = done
        unpack(files, folder)
        return prepared._replace(path=str(folder / prepared.path))

    def _result_of(self, running: Any, look: Callable[[], None] = lambda: None) -> Any:
        """Return a task's result, or None if stopped."""
        while not ray.wait([running], timeout=_SECONDS_BETWEEN_LOOKS)[0]:
            if self._stop.stop_all():
                ray.cancel(running, force=True)  # checkpoints are written atomically
                return None
            look()
        return _result(running)

    def wrap_secrets(self, outputs: dict[str, Any]) -> Any:
        """Return the settings, or a reference to them if the URI has secrets.

        Tune writes trial configs to Tune's files. An object reference keeps the secrets out of them.
        """
        return ray.put(outputs) if redact_place(outputs["location"]) != outputs["location"] else outputs

    def share(self, value: Any) -> Any:
        """Put a value into Ray's object store and return the reference. Tune's files then do not repeat the value."""
        return ray.put(value)

    def fill_tasks(self) -> "RayFillTasks":
        """Return tasks for filling teacher outputs. As many tasks as trials run at once."""
        plan = self._plan
        return RayFillTasks(plan, Slots(cpus=plan.cpus_per_trial, gpus=_resolved(plan), at_most=plan.max_concurrent))

    def run_trials(self, trials: TrialsToRun) -> None:
        """Run all trials by Ray Tune, until none is left or the study stops."""
        packing = Packing(self._plan, trials.settings, self._progress)
        storage = TrialStorage(self._plan)
        ledger = trials.ledger
        # Looked up before the first trial starts, because a storage without an answer ends the study. After a process
        # dies, the trial's checkpoints are looked up at that time.
        known = {entry.trial_id: storage.checkpoints_of(entry.trial_id) for entry in ledger.unfinished}
        search = StudySearch(
            ledger,
            packing.trial_settings,
            lambda entry: known.pop(entry.trial_id, []) or storage.newest_of(entry.trial_id),
            packing.slots,
            self._stop.lost_the_cluster,
            lambda: self._nodes is not None and self._nodes.is_unsettled(),
        )
        students = StudentCollector(ledger) if files_travel(self._plan) else None
        callback = StudyCallback(trials.recorder, self._progress, storage, search.was_returned, students)
        with closing(storage), self._watched_nodes(packing), _tune_is_silent():
            _tuner(self._plan, packing.trainable, search, ledger, callback, self._stop, storage).fit()
        for problem in students.collect_missing() if students is not None else ():
            self._progress.warn(problem)

    @contextmanager
    def _watched_nodes(self, packing: Packing) -> Iterator[None]:
        """Watch the nodes of a cluster that somebody else started."""
        if self._plan.address == "local":
            yield
            return
        with NodeWatch(self._plan, packing.slots.demand, self._progress.warn) as self._nodes:
            yield


class RayFillTasks:
    """Ray tasks for filling teacher outputs on all nodes; see `study.running.teacher_fill.FillTasks`.

    Args:
        plan: the study.
        slots: number of tasks running at once.
    """

    seconds = SECONDS_PER_TASK

    def __init__(self, plan: StudyPlan, slots: Slots) -> None:
        from trainables.tune.ray_tasks import fill_on_node

        self._slots = slots
        self._task = ray.remote(fill_on_node).options(
            num_cpus=plan.cpus_per_trial,
            num_gpus=_resolved(plan),
            max_retries=_FILL_RETRIES,
            scheduling_strategy="SPREAD",
        )

    def slots(self) -> int:
        """Return the number of tasks running at once."""
        return self._slots()

    def start(self, settings: dict[str, Any], shards: "list[Shard] | None") -> Any:
        """Start a task."""
        return self._task.remote(settings, shards)

    def done(self, running: Sequence[Any]) -> Sequence[Any]:
        """Return finished tasks, after waiting for a moment."""
        finished: Sequence[Any] = ray.wait(list(running), timeout=_SECONDS_BETWEEN_LOOKS)[0]
        return finished

    def report(self, task: Any) -> "FillReport":
        """Return a finished task's result."""
        report: FillReport = _result(task)
        return report

    def cancel(self, task: Any) -> None:
        """End a task."""
        ray.cancel(task, force=True)


def _resolved(plan: StudyPlan) -> float:
    assert plan.gpus_per_trial != AUTO, "choose_gpus comes first"
    return plan.gpus_per_trial


def _result(finished: Any) -> Any:
    try:
        return ray.get(finished)
    except ray.exceptions.RayTaskError as error:
        raise TaskFailedError(error.cause, _node_of(error) if len(ray.nodes()) > 1 else "") from None
    except ray.exceptions.RayError as error:
        raise TaskLostError(error) from None


def _node_of(error: ray.exceptions.RayTaskError) -> str:
    """Return the address of the node where a task failed. Ray raises errors without `ip`, but with it in the text."""
    found = _ADDRESS.search(str(error))
    return found[1] if found else ""


def _show(progress_file: Path, show: ShowTeacher) -> None:
    try:
        found = json.loads(progress_file.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return  # no progress yet, or the task runs on a node with another file system
    show(found["epoch"], found["accuracy"])


@contextmanager
def _tune_is_silent() -> Iterator[None]:
    # The callback reports a dead process. Tune would print the traceback as well.
    logger = logging.getLogger("ray.tune")
    before = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(before)


def _tuner(
    plan: StudyPlan,
    trainable: Any,
    search: StudySearch,
    ledger: StudyLedger,
    callback: StudyCallback,
    stop: Stop,
    storage: TrialStorage,
) -> tune.Tuner:
    callbacks: list[tune.Callback] = [callback]
    if plan.trial_timeout is not None:
        callbacks.append(Watchdog(plan.trial_timeout, search.give_up))
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=TuneSearcher(search),
            scheduler=make_scheduler(ledger),
            num_samples=-1,
            reuse_actors=True,
            trial_name_creator=lambda trial: str(trial.config["trial_id"]),
            trial_dirname_creator=_folder_of,
        ),
        run_config=tune.RunConfig(
            **storage.next_run,
            callbacks=callbacks,
            stop=TuneStopper(stop),
            verbose=0,
            progress_reporter=tune.CLIReporter(),  # prints nothing; Tune's own for notebooks shows an empty block
            # By default Tune writes a checkpoint when a trial ends, when none is needed any more.
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            failure_config=tune.FailureConfig(max_failures=0),  # the search restarts failed trials
        ),
    )


def _folder_of(trial: Any) -> str:
    """Return Tune's trial folder, one per process, because every new process restarts the checkpoint count."""
    return life_folder(str(trial.config["trial_id"]), trial.config["life"])
