"""Start of a study. A study refused before any work leaves nothing behind.

The folder of a new study is reserved before the slow checks, which take seconds: connecting to Ray, reading the data on
a node, opening MLflow. If a check refuses the study, or the user interrupts it, the folder is removed, so the same
command can be repeated. An already existing folder, or a folder with any result, is never removed.
"""

import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Final

from study.ledger.journal import read_lines
from study.plan.folder import PLAN_FILE, WARM_START_FILE, is_leftover, recorded_id
from study.plan.lock import LOCK_FILE, StudyLock
from study.plan.plan import StudyPlan
from study.plan.user_code import CODE_FOLDER
from trainables.process.errors import StudyError, UsageError
from trainables.storage.files import missing_folders, remove_empty

_JOURNAL: Final = "journal.jsonl"
_RECORDS: Final = "records"
# In this order: if the process is killed meanwhile, either the study can be resumed or the name is free.
_REMOVED: Final = (_JOURNAL, _RECORDS, PLAN_FILE, WARM_START_FILE, CODE_FOLDER)
_TRIES: Final = 10
_SECONDS_BETWEEN_TRIES: Final = 0.1
# Journal events before the first work. Student latencies and GPU memory are measured within seconds.
_BEFORE_WORK: Final = frozenset({"study", "deployment", "gpus"})


@dataclass
class Start:
    """Study start by one command.

    Attributes:
        has_begun: whether work has begun. The study is then kept in any case. True for a resumed study.
        has_worked: whether this command has begun work.
    """

    has_begun: bool = True
    has_worked: bool = False

    def begin_work(self) -> None:
        """Record the beginning of work."""
        self.has_begun = self.has_worked = True


@contextmanager
def removed_if_refused(plan: StudyPlan, *, is_new: bool) -> Iterator[Start]:
    """Yield the start of a study. If the block fails before work has begun, remove the folder of the new study.

    Args:
        plan: the study. The folder of a new study is created in the block.
        is_new: whether the study is new. An existing study is never removed.
    """
    start = Start(has_begun=not is_new)
    created = missing_folders(plan.directory)
    try:
        yield start
    except BaseException:
        if not start.has_begun:
            # Show the block's error, even if the removal fails.
            with suppress(OSError, StudyError, UsageError):
                _remove_soon(plan)
            remove_empty(created)
        raise


def _remove_soon(plan: StudyPlan) -> None:
    """Remove a study without begun work. Retry while another start with this name holds the lock."""
    for tries_left in reversed(range(_TRIES)):
        try:
            _remove(plan)
            break
        except UsageError:
            if not tries_left:
                raise
            time.sleep(_SECONDS_BETWEEN_TRIES)


def _remove(plan: StudyPlan) -> None:
    """Remove the files of a study without begun work, unless another process runs it."""
    if not plan.directory.is_dir():
        return
    with StudyLock(plan.directory):
        if not _is_unbegun(plan):
            return
        for name in _REMOVED:
            path = plan.directory / name
            if path.is_dir():
                shutil.rmtree(path)
            else:
                path.unlink(missing_ok=True)
        (plan.directory / LOCK_FILE).unlink()


def _is_unbegun(plan: StudyPlan) -> bool:
    """Return whether a folder holds this study and no result."""
    names = {path.name for path in plan.directory.iterdir()}
    if PLAN_FILE in names and recorded_id(plan.directory) != plan.study_id:
        return False
    if not all(name in _REMOVED or is_leftover(name) for name in names):
        return False
    if any(path.is_file() for path in (plan.directory / _RECORDS).rglob("*")):
        return False
    events = [event for _, event in read_lines(plan.directory / _JOURNAL)] if _JOURNAL in names else []
    return all(event is not None and event["event"] in _BEFORE_WORK for event in events)
