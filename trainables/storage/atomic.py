"""Files that are whole or absent, and lock files. This module does not import torch."""

import fcntl
import glob
import os
import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from trainables.storage.files import describe_full_disk, is_no_room


class StoredFileError(ValueError):
    """Tensor file is missing, damaged or not the expected one."""


def write_atomically(path: Path, content: bytes) -> None:
    """Replace the content of `path` in one step, durably."""
    with atomic_file(path, len(content)) as file:
        file.write(content)


@contextmanager
def atomic_file(path: Path, size: int | None = None) -> Iterator[BinaryIO]:
    """Open a new file. It replaces `path` in one step, durably, if the block ends without an error.

    Until then the file is named `.<name>.<random>.partial`. After an error the partial file is removed. The umask
    determines the permissions.

    Args:
        path: file to replace. A missing folder is created.
        size: file size in bytes, if known, for the error message on a full disk.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        with temporary.open("xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and is_no_room(error):
            raise describe_full_disk(error, path, size) from None
        raise
    folder = os.open(path.parent, os.O_RDONLY)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)


def remove_partial_files(path: Path) -> None:
    """Remove partial files from processes killed while writing `path`. The caller must be the only writer."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        partial.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Hold a lock file within the block. No other process then holds the same lock file.

    Args:
        path: lock file. A missing folder is created.
        wait: whether to wait until no other process holds the lock.

    Raises:
        BlockingIOError: another process holds the lock, and `wait` is False.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:  # existing content is kept
        # The lock is released when the file closes, and when the process dies.
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
