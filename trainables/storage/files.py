"""Atomic file replacement, and clear error messages for full disks."""

import errno
import itertools
import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

# Disk full, quota exceeded, and process file size limit exceeded.
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})
_TRIES: Final = 5


class NoRoomError(OSError):
    """Error for a file without room on the disk, with a message for the user."""

    def __str__(self) -> str:
        return str(self.args[1])


def is_no_room(error: BaseException | None) -> bool:
    """Return whether an error, or any of the error's causes, reports a full disk."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def describe_full_disk(error: OSError, path: Path, size: int | None = None) -> OSError:
    """Return an error with the file, the bytes needed and the bytes free.

    Errors other than a full disk are returned unchanged, with a file name added if missing.

    Args:
        error: error raised while writing.
        path: file to be written.
        size: file size in bytes, if known.
    """
    if isinstance(error, NoRoomError):
        return error
    if error.errno not in _NO_ROOM:
        return error if error.filename else OSError(error.errno, error.strerror, str(path))
    needs = "it needs room" if size is None else f"it needs {size:,} bytes"
    return NoRoomError(
        error.errno, f"{path} cannot be written ({os.strerror(error.errno)}): {needs}, and there are {free_space(path)}"
    )


@contextmanager
def writing(path: Path, size: int | None = None) -> Iterator[None]:
    """Convert errors raised in the block with `describe_full_disk`.

    Args:
        path: file written by the block.
        size: file size in bytes, if known.
    """
    try:
        yield
    except OSError as error:
        raise describe_full_disk(error, path, size) from None


def replace_file(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Replace the content of `path` atomically.

    Args:
        path: file to replace.
        content: new content.
        durable: whether to wait for the disk. The file then survives a power cut, as in
            `trainables.storage.atomic.write_atomically`. Not needed for files that can be recreated or are written
            once per trial.

    Raises:
        OSError: the file cannot be written (see `describe_full_disk`). No partial file is left behind.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        with writing(path, len(content)):
            partial.write_bytes(content)
            if durable:
                sync(partial)
            partial.replace(path)
            if durable:
                sync(path.parent)
    finally:
        partial.unlink(missing_ok=True)


def sync(path: Path) -> None:
    """Wait until a file, or a folder's entries, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def check_writable(folder: Path) -> None:
    """Check that a folder is writable. A missing folder is created and removed again.

    Raises:
        OSError: a file cannot be written.
    """
    for tries_left in reversed(range(_TRIES)):
        new = missing_folders(folder)
        try:
            folder.mkdir(parents=True, exist_ok=True)
            with tempfile.TemporaryFile(dir=folder):
                return
        except FileNotFoundError:  # another process has removed the folder after the same check
            if not tries_left:
                raise
        finally:
            remove_empty(new)


def missing_folders(folder: Path) -> list[Path]:
    """Return the folders to be created by `mkdir` for a folder, innermost first."""
    return list(itertools.takewhile(lambda each: not each.exists(), (folder, *folder.parents)))


def remove_empty(folders: Iterable[Path]) -> None:
    """Remove empty folders, in the given order."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def free_space(path: Path) -> str:
    """Describe the free space for a file, for example "12 bytes free in /data"."""
    there = next((each for each in path.absolute().parents if each.exists()), Path("/"))
    with suppress(OSError):
        free, left = shutil.disk_usage(there).free, os.statvfs(there).f_favail
        return f"{free:,} bytes free in {there}" + ("" if left else ", and no file can be added")
    return f"none free in {there}"
