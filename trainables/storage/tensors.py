"""Tensor files, written atomically and verified by a checksum on reading."""

import fcntl
import glob
import hashlib
import json
import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from trainables.storage.files import describe_full_disk, is_no_room

HEADER: Final = "pesfkd"


class StoredFileError(ValueError):
    """Tensor file is missing, damaged or not the expected one."""


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """Compute the SHA-256 digest of tensors with names, dtypes and shapes, in hexadecimal. The order is irrelevant."""
    content = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        content.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        content.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a safetensors file that `read_tensors` can verify.

    The file appears at `path` only when complete and on disk. A reader, or a crash, finds either the old file or the
    new one.

    Args:
        path: file to write. A missing folder is created.
        tensors: tensors by name.
        metadata: values by name, JSON-serialisable.
    """
    # Copy each tensor, because safetensors refuses shared memory and non-contiguous tensors.
    owned = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    text = json.dumps(metadata, sort_keys=True)
    # Use a single entry, because safetensors writes several entries in no fixed order. Equal contents give equal files.
    header = json.dumps({"checksum": _checksum(owned, text), "metadata": text})
    write_atomically(path, safetensors.torch.save(owned, metadata={HEADER: header}))


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


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Read the tensors and metadata in a file written by `write_tensors`.

    Raises:
        StoredFileError: the file does not exist, cannot be parsed, or does not match the stored checksum. The message
            names the file.
    """
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            header = json.loads((file.metadata() or {}).get(HEADER, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    except FileNotFoundError as error:
        raise StoredFileError(f"{path}: there is no such file") from error
    except (safetensors.SafetensorError, OSError, ValueError) as error:
        raise StoredFileError(f"{path}: not a readable safetensors file ({error})") from error
    found, text = header.get("checksum", "none"), header.get("metadata", "")
    expected = _checksum(tensors, text)
    if found != expected:
        raise StoredFileError(f"{path}: damaged: the stored checksum is {found}, but the content has {expected}")
    metadata: dict[str, Any] = json.loads(text)
    return tensors, metadata


def _checksum(tensors: Mapping[str, Tensor], metadata: str) -> str:
    return hashlib.sha256(f"{tensors_digest(tensors)}|{metadata}".encode()).hexdigest()
