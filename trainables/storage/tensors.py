"""Tensor files, written atomically and verified by a checksum on reading."""

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from trainables.storage.atomic import StoredFileError, write_atomically

HEADER: Final = "pesfkd"


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


def read_metadata(path: Path) -> dict[str, Any]:
    """Read the metadata in a file written by `write_tensors`, without the tensors and without verifying the content.

    Raises:
        StoredFileError: the file does not exist, or cannot be parsed.
    """
    try:
        with safetensors.safe_open(path, framework="pt", device="cpu") as file:
            metadata: dict[str, Any] = json.loads(json.loads((file.metadata() or {})[HEADER])["metadata"])
    except (safetensors.SafetensorError, OSError, ValueError, KeyError, TypeError) as error:
        raise StoredFileError(f"{path}: not a readable safetensors file ({error})") from error
    return metadata


def _checksum(tensors: Mapping[str, Tensor], metadata: str) -> str:
    return hashlib.sha256(f"{tensors_digest(tensors)}|{metadata}".encode()).hexdigest()
