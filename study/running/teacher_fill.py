"""Filling of the stored teacher outputs before the trials, by an executor's tasks.

A trial with E epochs uses min(views, E) slots, each once before any slot a second time. Controls and replicates always
run to the end, with any scheduler. A study therefore needs every slot. Filling all slots ahead costs the teacher no
more than the first trial would with a live teacher. If confirmation trials have more epochs, their slots are filled as
well. Filling ahead uses the whole cluster, while trials needing the same slot would wait for each other. If a task or a
disk fails, the first trial with a missing slot computes the slot.

The first task lists the missing shards and fills the smallest one. The speed of this task decides how the others are
distributed. If one process would finish the others before a second process could start, they form one task. Otherwise
each task takes at most about ten seconds.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

from study.cli.progress import StudyProgress
from study.plan.plan import StudyPlan
from study.plan.teacher_storage import reckon_teacher_storage
from study.running.task_errors import TaskFailedError, TaskLostError, on_node
from trainables.display.numbers import counted
from trainables.display.progress import time_left
from trainables.process.errors import StudyError
from trainables.storage.files import check_writable
from trainables.storage.remote_folder import RemoteFolderError, check_remote_folder
from trainables.storage.uris import is_uri

if TYPE_CHECKING:
    from trainables.teacher_outputs.shard import Shard
    from trainables.tune.reports import FillReport

SECONDS_ALONE: Final = 2.0  # approximate time for a process to start and import torch
SECONDS_PER_TASK: Final = 10.0
_ROUNDS: Final = 3  # row ranges, files assembled from them, and one for lost tasks


@dataclass
class Filling:
    """Filling statistics.

    Args:
        forwards: number of samples passed through the teacher.
        shards: number of shards filled.
        nodes: nodes on which shards were filled.
        seconds: wall time.
        complete: whether no shard is missing.
    """

    forwards: int = 0
    shards: int = 0
    nodes: set[str] = field(default_factory=set)
    seconds: float = 0.0
    complete: bool = False

    @property
    def rate(self) -> float:
        """Samples per second (wall time)."""
        return self.forwards / self.seconds if self.seconds > 0 else 0.0


class FillTasks(Protocol):
    """Tasks running `trainables.tune.tasks.fill_teacher_outputs`.

    Attributes:
        seconds: approximate task length in seconds; see `deal_out`.
    """

    seconds: float

    def slots(self) -> int:
        """Return the number of tasks running at once."""
        ...

    def start(self, settings: dict[str, Any], shards: "list[Shard] | None") -> Any:
        """Start a task, and return a hashable handle."""
        ...

    def done(self, running: Sequence[Any]) -> Sequence[Any]:
        """Return finished tasks, after waiting for a moment."""
        ...

    def report(self, task: Any) -> "FillReport":
        """Return a finished task's result.

        Raises:
            TaskFailedError: the task raised an error.
            TaskLostError: the task ended without a result.
        """
        ...

    def cancel(self, task: Any) -> None:
        """End a task. Files are written atomically."""
        ...


class TeacherFill:
    """Filling of a study's missing teacher outputs.

    Args:
        tasks: the executor's tasks.
        settings: trial settings, plus `config`: the fields of any trial config with this teacher.
        progress: progress display for the user.
        entered: called with each task's report.
        stopped: returns whether to end now. Outputs filled by then are kept.
        seconds_alone: work below this number of seconds stays in one task.
    """

    def __init__(
        self,
        tasks: FillTasks,
        settings: dict[str, Any],
        progress: StudyProgress,
        *,
        entered: "Callable[[FillReport], None]" = lambda _: None,
        stopped: Callable[[], bool] = lambda: False,
        seconds_alone: float = SECONDS_ALONE,
    ) -> None:
        self._tasks = tasks
        self._settings = settings
        self._progress = progress
        self._entered = entered
        self._stopped = stopped
        self._seconds_alone = seconds_alone
        self._filling = Filling()
        self._filled: set[Shard] = set()
        self._began = time.monotonic()

    def run(self) -> Filling:
        """Fill until no shard is missing, or until further attempts are useless.

        Raises:
            StudyError: the teacher outputs cannot be computed as requested.
        """
        for _ in range(_ROUNDS):
            known = set(self._filled)
            looked = next(self._reports([None]), None)
            if looked is None or self._stopped():
                break
            self._filling.complete = not looked.missing
            if not looked.filled:  # nothing is missing, or storing failed
                break
            if lost := known.intersection(looked.missing):
                self._progress.warn(
                    f"{len(lost)} files of the teacher's outputs that one node wrote another does not see: the nodes "
                    "share no folder there, so each fills its own as its trials come to them"
                )
                break
            self._fill([shard for shard in looked.missing if shard not in looked.filled], looked)
        self._filling.seconds = time.monotonic() - self._began
        self._say_result()
        return self._filling

    def _fill(self, shards: "list[Shard]", looked: "FillReport") -> None:
        rate = looked.forwards / looked.seconds if looked.forwards else 0.0
        batches = deal_out(
            shards,
            rate=rate,
            slots=self._tasks.slots(),
            seconds_alone=self._seconds_alone,
            seconds_per_task=self._tasks.seconds,
        )
        rows, done, began = sum(map(_rows, shards)), 0, time.monotonic()
        before = self._filling.shards
        with self._progress.counting("teacher outputs, files", before + len(shards)) as changed:
            for report in self._reports(batches):
                done += sum(map(_rows, report.filled))
                pace, left = done / (time.monotonic() - began), time_left(began, done, rows - done)
                changed(self._filling.shards, f"{pace:,.0f} rows/s" + (f", {left}" if left else ""))

    def _reports(self, batches: "Sequence[list[Shard] | None]") -> "Iterator[FillReport]":
        """Run a task for each batch, as many at once as `slots` allows, and yield the reports.

        For None, the task lists the missing shards and fills one.
        """
        waiting = deque(batches)
        running: dict[Any, list[Shard] | None] = {}
        try:
            while (waiting or running) and not self._stopped():
                while waiting and len(running) < self._tasks.slots():
                    batch = waiting.popleft()
                    running[self._tasks.start(self._settings, batch)] = batch
                for task in self._tasks.done(list(running)):
                    batch = running.pop(task)
                    report = self._enter(task)
                    if report is not None:
                        if len(report.filled) < len(batch or report.missing[:1]):
                            waiting.clear()  # full disk or refused write: the remaining tasks would fail too
                        yield report
        finally:
            for task in running:
                self._tasks.cancel(task)

    def _enter(self, task: Any) -> "FillReport | None":
        try:
            report = self._tasks.report(task)
        except TaskFailedError as error:
            if isinstance(error.cause, OSError):  # the storage was available a moment ago
                self._progress.warn(f"{error.cause}; trials fill what is missing")
                return None
            raise StudyError(f"the teacher's outputs cannot be stored{on_node(error)}: {error.cause}") from None
        except TaskLostError as error:
            self._progress.warn(f"a task that filled teacher outputs was lost ({error.kind}); trials fill them")
            return None
        for note in report.notes:
            self._progress.warn(note)
        self._filled.update(report.filled)
        self._filling.shards += len(report.filled)
        self._filling.forwards += report.forwards
        self._filling.nodes |= {report.node} if report.filled else set()
        self._entered(report)
        return report

    def _say_result(self) -> None:
        filling = self._filling
        if filling.complete and not filling.shards:
            self._progress.say("teacher outputs: all of them are there")
            return
        end = "" if filling.complete else "; the rest is filled as trials come to it"
        self._progress.say(
            f"teacher outputs: {filling.shards} files filled, {filling.forwards:,} rows in {filling.seconds:.1f} s "
            f"({filling.rate:,.0f} rows/s) on {counted(len(filling.nodes), 'node')}{end}"
        )


def check_outputs_location(plan: StudyPlan) -> None:
    """Check, before any work, that the plan's location accepts teacher outputs.

    Raises:
        StudyError: the storage does not answer, refuses access or lacks the bucket, or the folder is not writable.
    """
    location = plan.teacher_outputs_path
    if location is None or plan.teacher_outputs_used == "live" or not reckon_teacher_storage(plan).passes_stored:
        return
    try:
        if is_uri(location):
            check_remote_folder(location)
        elif plan.address == "local":  # not on a cluster: folders missing here may exist on nodes
            check_writable(Path(location))
    except RemoteFolderError as error:
        raise StudyError(str(error)) from None
    except OSError as error:
        raise StudyError(
            f"--teacher-outputs-path: cannot write in {location} ({error.strerror}); name a folder that you may write"
        ) from None


def deal_out(
    shards: "list[Shard]",
    *,
    rate: float,
    slots: int,
    seconds_alone: float,
    seconds_per_task: float = SECONDS_PER_TASK,
) -> "list[list[Shard]]":
    """Split shards into batches, one per task.

    Args:
        shards: shards, sorted by first use.
        rate: one task's speed in rows per second. If unknown (0), each shard gets a separate task.
        slots: number of tasks running at once.
        seconds_alone: work below this number of seconds stays in one batch.
        seconds_per_task: maximum seconds per batch, unless a single shard takes longer.
    """
    total = sum(map(_rows, shards))
    if rate and total <= rate * seconds_alone:
        return [shards] if shards else []
    most = min(rate * seconds_per_task, total / slots)
    batches: list[list[Shard]] = []
    room = 0.0
    for shard in shards:
        if not batches or _rows(shard) > room:
            batches.append([])
            room = most
        batches[-1].append(shard)
        room -= _rows(shard)
    return batches


def _rows(shard: "Shard") -> int:
    return shard.stop - shard.start
