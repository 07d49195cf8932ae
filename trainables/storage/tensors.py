"""Files of tensors that are written whole or not at all, and refused on reading if a byte of them changed."""

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
    """A file of tensors that is damaged or is not what it should be."""


def tensors_digest(tensors: Mapping[str, Tensor]) -> str:
    """sha256 of tensors with their names, types and shapes, hexadecimal; their order does not matter."""
    content = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        content.update(f"|{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        content.update(tensor.flatten().view(torch.uint8).numpy().tobytes())
    return content.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, Any]) -> None:
    """Write a safetensors file that `read_tensors` can verify.

    The file appears under its name only when it is complete and on disk, so that a reader, or a crash, meets
    the old file or the new one and nothing in between.

    Args:
        path: the file; its folder is made if it is not there.
        tensors: by name.
        metadata: anything that JSON holds.
    """
    # A copy each: safetensors refuses tensors that share memory, and a view would be written whole.
    owned = {name: value.detach().to("cpu", copy=True).contiguous() for name, value in tensors.items()}
    text = json.dumps(metadata, sort_keys=True)
    # One entry, as safetensors writes several in no fixed order: equal contents make equal files.
    header = json.dumps({"checksum": _checksum(owned, text), "metadata": text})
    write_atomically(path, safetensors.torch.save(owned, metadata={HEADER: header}))


def write_atomically(path: Path, content: bytes) -> None:
    """Replace `path` by `content` in one step, durably."""
    with atomic_file(path, len(content)) as file:
        file.write(content)


@contextmanager
def atomic_file(path: Path, size: int | None = None) -> Iterator[BinaryIO]:
    """A new file to write, which replaces `path` in one step, durably, when the block ends without an error.

    Until then it has the name `.<name>.<random>.partial`; after an error nothing of it is left. Who may read it,
    the umask says.

    Args:
        path: the file; its folder is made if it is not there.
        size: bytes that it takes, if that is known; a disk that is full is told of with it.
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
    """Remove what processes that died while they wrote `path` left; only for who alone may write it now."""
    for partial in path.parent.glob(f".{glob.escape(path.name)}.*.partial"):
        partial.unlink(missing_ok=True)


@contextmanager
def locked(path: Path, *, wait: bool = True) -> Iterator[None]:
    """Within the block no other process is in such a block of the same `path`, a file made for the purpose.

    Args:
        path: the file; its folder is made if it is not there.
        wait: until nobody else is.

    Raises:
        BlockingIOError: somebody else is, and this is not to wait.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("a") as file:  # a file that is there keeps its content, whatever it is
        # Released when the file closes, and when the process dies.
        fcntl.flock(file, fcntl.LOCK_EX if wait else fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Tensors and metadata of a file that `write_tensors` wrote.

    Raises:
        StoredFileError: naming the file, if it is not there, cannot be parsed, or its content does not have
            the checksum it was written with.
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
        raise StoredFileError(f"{path}: damaged: the checksum in the file is {found}, its content's is {expected}")
    metadata: dict[str, Any] = json.loads(text)
    return tensors, metadata


def _checksum(tensors: Mapping[str, Tensor], metadata: str) -> str:
    return hashlib.sha256(f"{tensors_digest(tensors)}|{metadata}".encode()).hexdigest()
