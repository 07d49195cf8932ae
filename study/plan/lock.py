"""Lock to allow only one driver per study."""

import errno
import fcntl
import os
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Final

from trainables.process.errors import StudyError, UsageError

LOCK_FILE: Final = ".lock"


class NoFolderError(UsageError):
    """Error if another process has removed a study's folder."""


class StudyLock:
    """Exclusive lock on a study's folder. The kernel releases the lock when the process ends in any way.

    The text in the lock file only informs the user. A file left by a crash or a reboot does not block anyone.

    Args:
        directory: study folder.
    """

    def __init__(self, directory: Path) -> None:
        self._path = directory / LOCK_FILE
        self._descriptor = -1

    def __enter__(self) -> "StudyLock":
        self._take()
        while not self._is_in_place():  # a study holding the lock was rejected and has removed the file
            os.close(self._descriptor)
            self._take()
        with suppress(OSError):  # the text is only informative, so a full disk is no error
            os.ftruncate(self._descriptor, 0)
            os.pwrite(self._descriptor, f"pid {os.getpid()} on {os.uname().nodename}".encode(), 0)
        return self

    def _take(self) -> None:
        try:
            self._descriptor = os.open(self._path, os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError:
            raise NoFolderError(
                f"the folder {self._path.parent} is gone: the start of this study was refused, or it was moved"
            ) from None
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

    def _is_in_place(self) -> bool:
        """Return whether the lock's path still leads to the locked file."""
        try:
            return os.path.samestat(os.fstat(self._descriptor), self._path.stat())
        except FileNotFoundError:
            return False

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        os.close(self._descriptor)
