"""Files of teacher outputs: rows of equal width in Arrow IPC, mapped into memory, refused if anything is amiss.

A file is one record batch with one column `feature` of fixed-size binary rows, which is contiguous: a tensor over
the mapped file gathers a batch in microseconds, where Arrow's own `take` needs a hundred milliseconds. Its schema
metadata says whose rows they are and holds a checksum of every block of them, and one of itself.
"""

import json
import warnings
import zlib
from collections.abc import Mapping
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import torch
from torch import Tensor

from trainables.storage import StoredFileError, atomic_file

OutputsDtype = Literal["float16", "bfloat16", "float32"]

DTYPES: Final[dict[str, torch.dtype]] = {
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
_HEADER: Final = b"pesfkd"
_COLUMN: Final = "feature"
_BLOCK_BYTES: Final = 1 << 20


class TeacherOutputsFileError(StoredFileError):
    """A file of teacher outputs that is damaged or is not the one that was asked for."""


def write_rows(path: Path, rows: Tensor, origin: Mapping[str, Any]) -> None:
    """Write a file that `map_rows` can verify; it appears under its name when it is complete and on disk.

    Args:
        path: the file; its folder is made if it is not there.
        rows: (N, D), of a dtype in `DTYPES`, on the CPU.
        origin: whose rows they are, by names; anything that JSON holds.

    Raises:
        OSError: the disk is full or refuses; what was there before is there still.
    """
    content = rows.contiguous().view(torch.uint8).numpy()
    text = json.dumps({"origin": dict(origin), "checksums": _checksums(content.reshape(-1).data)})
    header = json.dumps({"checksum": zlib.crc32(text.encode()), "text": text})
    kind = pa.binary(content.shape[1])
    schema = pa.schema([pa.field(_COLUMN, kind, nullable=False)], metadata={_HEADER: header})
    column = pa.FixedSizeBinaryArray.from_buffers(kind, len(content), [None, pa.py_buffer(content)])
    with atomic_file(path) as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(pa.record_batch([column], schema=schema))


def map_rows(path: Path, origin: Mapping[str, Any], *, shape: tuple[int, int], dtype: OutputsDtype) -> Tensor:
    """The rows of a file that `write_rows` wrote, mapped and verified, not copied.

    Reading every byte once for the checksums costs about a second per GB, and brings the file into the page cache,
    from which all processes of the machine gather.

    Args:
        path: the file. It may be replaced while it is mapped, not changed in place.
        origin: whose rows they must be.
        shape: (N, D).
        dtype: of the rows.

    Returns:
        (N, D), read-only: writing to it ends the process.

    Raises:
        FileNotFoundError: there is no such file.
        TeacherOutputsFileError: naming the file and what is wrong with it.
    """
    try:
        batch, header = _read_batch(path)
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError) as error:
        raise TeacherOutputsFileError(f"{path}: not a whole file of teacher outputs ({error})") from error
    found = header["origin"]
    for name in sorted(origin.keys() | found.keys()):
        if found.get(name) != origin.get(name):
            raise TeacherOutputsFileError(
                f"{path}: other outputs: {name} is {found.get(name)!r}, expected {origin.get(name)!r}"
            )
    size = shape[1] * DTYPES[dtype].itemsize
    content = _contiguous_rows(path, batch, rows=shape[0], size=size)
    damaged = [
        number for number, pair in enumerate(zip_longest(_checksums(content), header["checksums"])) if len({*pair}) > 1
    ]
    if damaged:
        raise TeacherOutputsFileError(f"{path}: damaged: blocks {damaged} of {_BLOCK_BYTES} bytes have other checksums")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(content, dtype=DTYPES[dtype]).view(shape)


def _read_batch(path: Path) -> tuple[pa.RecordBatch, dict[str, Any]]:
    """The one record batch, its buffers in the mapped file, and what the metadata says."""
    reader = pa.ipc.open_file(pa.memory_map(str(path)))
    header = json.loads((reader.schema.metadata or {})[_HEADER])
    text = header["text"].encode()
    if zlib.crc32(text) != header["checksum"]:
        raise ValueError("its metadata are damaged")
    if reader.num_record_batches != 1:
        raise ValueError(f"it has {reader.num_record_batches} record batches instead of 1")
    batch = reader.get_batch(0)
    batch.validate(full=True)
    return batch, json.loads(text)


def _contiguous_rows(path: Path, batch: pa.RecordBatch, *, rows: int, size: int) -> memoryview:
    column = batch.column(0)
    if column.type != pa.binary(size) or len(column) != rows or column.null_count or column.offset:
        raise TeacherOutputsFileError(
            f"{path}: {len(column)} rows of {column.type}, expected {rows} of {pa.binary(size)} without gaps"
        )
    content = memoryview(column.buffers()[1])[: rows * size]
    if len(content) != rows * size:
        raise TeacherOutputsFileError(f"{path}: {len(content)} bytes of rows, expected {rows * size}")
    return content


def _checksums(content: memoryview) -> list[int]:
    return [zlib.crc32(content[start : start + _BLOCK_BYTES]) for start in range(0, len(content), _BLOCK_BYTES)]
