"""Lock that allows one driver per study."""

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType

from trainables.process.errors import StudyError, UsageError


class StudyLock:
    """Exclusive lock on a study's folder. The kernel releases the lock when the process ends in any way.

    The text in the lock file only informs the user. A file left by a crash or a reboot does not block anyone.

    Args:
        directory: folder of the study.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / ".lock"
        self._descriptor = -1

    def __enter__(self) -> "StudyLock":
        self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        try:
            fcntl.flock(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            holder = os.pread(self._descriptor, 100, 0).decode(errors="replace").strip()
            os.close(self._descriptor)
            if error.errno not in (errno.EWOULDBLOCK, errno.EACCES):
                raise StudyError(
                    f"{self._path} cannot be locked ({error.strerror}), so two processes could run this study at the "
                    "same time: put --output-dir on a file system that supports locks"
                ) from None
            raise UsageError(
                f"study {self._path.parent.name!r} is being run by another process ({holder or 'unknown'}): "
                "wait for it, or end it first"
            ) from None
        with suppress(OSError):  # the text is only informative, so a full disk is no error
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"pid {os.getpid()} on {os.uname().nodename}".encode(), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
