"""The stored outputs of the teacher, filled by Ray tasks before the trials begin.

A trial of E epochs uses min(views, E) slots, each of them once before any a second time, and some trials are always
trained to their end (controls and repeated configs, whatever the scheduler). So a study needs every slot, and filling
them ahead is no more work for the teacher than a live one does in the first trial; but it takes all slots of the
cluster, where trials that come to the same slot would wait for each other. What is not filled, because a task or a disk
failed, the first trial that comes to it computes.

The first task looks at what is missing and fills the smallest shard. Its pace decides how the others are dealt out: all
to one process if it is done before another has started, in tasks of some seconds otherwise.
"""

import tempfile
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import ray

from study.cli.progress import StudyProgress, duration
from study.plan.plan import StudyPlan
from study.plan.teacher_storage import reckon_teacher_storage
from study.running.cluster import Slots
from trainables.process.errors import StudyError
from trainables.storage.remote_folder import RemoteFolderError, check_remote_folder
from trainables.storage.uris import is_uri

if TYPE_CHECKING:
    from trainables.teacher_outputs.store import Shard
    from trainables.tune.tasks import FillReport

SECONDS_ALONE: Final = 2.0  # about what a process takes to start and to import torch
SECONDS_PER_TASK: Final = 10.0
_ROUNDS: Final = 3  # ranges of rows, files put together from them, and one for what got lost
_RETRIES: Final = 3
_SECONDS_BETWEEN_LOOKS: Final = 0.25


@dataclass
class Filling:
    """What filling came to.

    Args:
        forwards: samples that went through the teacher.
        shards: that were filled.
        nodes: that filled some.
        seconds: wall time.
        complete: whether nothing is missing.
    """

    forwards: int = 0
    shards: int = 0
    nodes: set[str] = field(default_factory=set)
    seconds: float = 0.0
    complete: bool = False

    @property
    def rate(self) -> float:
        """Samples per second of wall time."""
        return self.forwards / self.seconds if self.seconds > 0 else 0.0


class TeacherFill:
    """Fills what is missing of a study's stored teacher outputs.

    Args:
        plan: the study.
        settings: what its trials get in their Tune config, and `config`, that of any of them.
        slots: how many tasks run at once.
        progress: where a person sees how it goes.
        entered: called with what each task did.
        stopped: whether to end now; what is filled by then is kept.
        seconds_alone: work that is not worth another process.
    """

    def __init__(
        self,
        plan: StudyPlan,
        settings: dict[str, Any],
        slots: Slots,
        progress: StudyProgress,
        *,
        entered: "Callable[[FillReport], None]" = lambda _: None,
        stopped: Callable[[], bool] = lambda: False,
        seconds_alone: float = SECONDS_ALONE,
    ) -> None:
        from trainables.tune.tasks import fill_teacher_outputs

        self._settings = settings
        self._slots = slots
        self._progress = progress
        self._entered = entered
        self._stopped = stopped
        self._seconds_alone = seconds_alone
        self._filling = Filling()
        self._filled: set[Shard] = set()
        self._began = time.monotonic()
        self._task = ray.remote(fill_teacher_outputs).options(
            num_cpus=plan.cpus_per_trial,
            num_gpus=plan.gpus_per_trial,
            max_retries=_RETRIES,
            scheduling_strategy="SPREAD",
        )

    def run(self) -> Filling:
        """Fill until nothing is missing, or it is no use.

        Raises:
            StudyError: the teacher's outputs cannot be computed as asked.
        """
        for _ in range(_ROUNDS):
            known = set(self._filled)
            looked = next(self._reports([None]), None)
            if looked is None or self._stopped():
                break
            self._filling.complete = not looked.missing
            if not looked.filled:  # nothing is missing, or it cannot be stored
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
        batches = deal_out(shards, rate=rate, slots=self._slots(), seconds_alone=self._seconds_alone)
        rows, done, began = sum(map(_rows, shards)), 0, time.monotonic()
        before = self._filling.shards
        with self._progress.counting("teacher outputs, files", before + len(shards)) as changed:
            for report in self._reports(batches):
                done += sum(map(_rows, report.filled))
                pace = done / (time.monotonic() - began)
                left = f", about {duration((rows - done) / pace)} left" if pace else ""
                changed(self._filling.shards, f"{pace:,.0f} rows/s{left}")

    def _reports(self, batches: "Sequence[list[Shard] | None]") -> "Iterator[FillReport]":
        """Run a task for each batch, as many at once as there are slots; None is to look and fill one."""
        waiting = deque(batches)
        running: dict[Any, list[Shard] | None] = {}
        try:
            while (waiting or running) and not self._stopped():
                while waiting and len(running) < self._slots():
                    batch = waiting.popleft()
                    running[self._task.remote(self._settings, batch)] = batch
                for reference in ray.wait(list(running), timeout=_SECONDS_BETWEEN_LOOKS)[0]:
                    batch = running.pop(reference)
                    report = self._enter(reference)
                    if report is not None:
                        if len(report.filled) < len(batch or report.missing[:1]):
                            waiting.clear()  # a full disk, or storage that refuses: the rest would be in vain
                        yield report
        finally:
            for reference in running:
                ray.cancel(reference, force=True)  # files appear whole or not at all

    def _enter(self, reference: Any) -> "FillReport | None":
        try:
            report: FillReport = ray.get(reference)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, OSError):  # storage that was there a moment ago
                self._progress.warn(f"{error.cause}; trials fill what is missing")
                return None
            raise StudyError(f"the teacher's outputs cannot be stored: {error.cause}") from None
        except ray.exceptions.RayError as error:
            self._progress.warn(
                f"a task that filled teacher outputs was lost ({type(error).__name__}); trials fill them"
            )
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
            f"({filling.rate:,.0f} rows/s) on {len(filling.nodes)} node{'s' if len(filling.nodes) != 1 else ''}{end}"
        )


def check_outputs_location(plan: StudyPlan) -> None:
    """Check, before any work, that the teacher's outputs can be stored where the plan says.

    Raises:
        StudyError: the storage does not answer, refuses, or has no such bucket, or a folder cannot be written.
    """
    location = plan.teacher_outputs_path
    if location is None or plan.teacher_outputs_used == "live" or not reckon_teacher_storage(plan).passes_stored:
        return
    try:
        if is_uri(location):
            check_remote_folder(location)
        elif plan.address == "local":  # a cluster's nodes may have folders that this machine does not have
            folder = Path(location)
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                pass
    except RemoteFolderError as error:
        raise StudyError(str(error)) from None
    except OSError as error:
        raise StudyError(
            f"--teacher-outputs-path: cannot write in {location} ({error.strerror}); name a folder that you may write"
        ) from None


def deal_out(shards: "list[Shard]", *, rate: float, slots: int, seconds_alone: float) -> "list[list[Shard]]":
    """Shards in batches, one for a task.

    Args:
        shards: in the order in which they are wanted.
        rate: rows per second of one task; 0 if that is not known, which gives each shard a task.
        slots: how many tasks run at once.
        seconds_alone: less work than that stays in one batch.
    """
    total = sum(map(_rows, shards))
    if rate and total <= rate * seconds_alone:
        return [shards] if shards else []
    most = min(rate * SECONDS_PER_TASK, total / slots)
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
