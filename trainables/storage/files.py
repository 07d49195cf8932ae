"""What a disk that takes no more says: which file, how much room it needs and how much there is."""

import errno
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

# Full, over a quota, and over the largest file that a process may write.
_NO_ROOM: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class NoRoomError(OSError):
    """There is no room for a file; its text is for people."""

    def __str__(self) -> str:
        return str(self.args[1])


def is_no_room(error: BaseException | None) -> bool:
    """Whether an error, or what it came from, is a disk that is full."""
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError) and error.errno in _NO_ROOM:
            return True
        seen.add(id(error))
        error = error.__cause__ or error.__context__
    return False


def describe_full_disk(error: OSError, path: Path, size: int | None = None) -> OSError:
    """The same error, saying what a person has to know of it; one of another kind gets its file's name.

    Args:
        error: of writing.
        path: of the file that was to be written.
        size: bytes that it takes, if that is known.
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
    """What goes wrong in the block is told as `describe_full_disk` does.

    Args:
        path: of the file that it writes.
        size: bytes that it takes, if that is known.
    """
    try:
        yield
    except OSError as error:
        raise describe_full_disk(error, path, size) from None


def replace_file(path: Path, content: bytes, *, durable: bool = False) -> None:
    """Replace `path` by `content` whole or not at all.

    Args:
        path: the file.
        content: all of it.
        durable: whether to wait for the disk, so that it survives a power cut, as
            `trainables.storage.tensors.write_atomically` does; not for what can be made again, or is written once a
            trial.

    Raises:
        OSError: as `describe_full_disk` tells of it; nothing half-written is left.
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
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def free_space(path: Path) -> str:
    """Describe how much room there is for a file, such as "12 bytes free in /data"."""
    there = next((each for each in path.absolute().parents if each.exists()), Path("/"))
    with suppress(OSError):
        free, left = shutil.disk_usage(there).free, os.statvfs(there).f_favail
        return f"{free:,} bytes free in {there}" + ("" if left else ", and no file can be added")
    return f"none free in {there}"
