"""Teacher output files: rows of equal width in Arrow IPC, memory-mapped and verified by checksums.

A file is one record batch with one column `feature` of fixed-size binary rows. The rows are contiguous, so a tensor
over the mapped file gathers a batch in microseconds. Arrow's own `take` needs a hundred milliseconds. The schema
metadata hold the rows' origin, one checksum per row block, and a checksum for the metadata themselves.
"""

import json
import warnings
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import zip_longest
from pathlib import Path
from typing import Any, Final, Literal

import pyarrow as pa
import torch
from torch import Tensor

from trainables.storage.atomic import StoredFileError, atomic_file

OutputsDtype = Literal["float16", "bfloat16", "float32"]
RowDtype = OutputsDtype | Literal["uint8"]

DTYPES: Final[dict[str, torch.dtype]] = {
    "uint8": torch.uint8,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
    "float32": torch.float32,
}
_HEADER: Final = b"pesfkd"
_COLUMN: Final = "feature"
_BLOCK_BYTES: Final = 1 << 20


class TeacherOutputsFileError(StoredFileError):
    """Teacher output file is damaged or not the requested one."""


def write_rows(path: Path, rows: Tensor, origin: Mapping[str, Any]) -> None:
    """Write a file for `map_rows`. The file appears at `path` only when complete and on disk.

    Args:
        path: file to write. A missing folder is created.
        rows: (N, D), CPU tensor with a dtype in `DTYPES`.
        origin: row description by name, such as teacher and dataset. The values must be JSON-serialisable.

    Raises:
        OSError: the disk is full or not writable. An existing file at `path` is kept.
    """
    content = rows.contiguous().view(torch.uint8).numpy()
    text = json.dumps({"origin": dict(origin), "checksums": _checksums(content.reshape(-1).data)})
    header = json.dumps({"checksum": zlib.crc32(text.encode()), "text": text})
    schema = _schema(content.shape[1], {_HEADER: header})
    column = pa.FixedSizeBinaryArray.from_buffers(schema.types[0], len(content), [None, pa.py_buffer(content)])
    with atomic_file(path, content.nbytes) as file, pa.ipc.new_file(file, schema) as writer:
        writer.write_batch(pa.record_batch([column], schema=schema))


def map_rows(path: Path, origin: Mapping[str, Any], *, shape: tuple[int, int], dtype: RowDtype) -> Tensor:
    """Map and verify the rows in a file written by `write_rows`, without copying them.

    Verification reads every byte once, which takes about a second per GB. Reading also brings the file into the page
    cache, which all processes on the machine share.

    Args:
        path: file to map. While mapped, the file may be replaced but not changed in place.
        origin: expected row description.
        shape: (N, D).
        dtype: row dtype.

    Returns:
        Rows (N, D), read-only. Writing to them ends the process.

    Raises:
        FileNotFoundError: the file does not exist.
        TeacherOutputsFileError: the file is damaged or holds other rows. The message names the file and the problem.
    """
    with _naming_the_file(path):
        reader = pa.ipc.open_file(pa.memory_map(str(path)))
        header = _read_header(reader.schema)
    found = header["origin"]
    for name in sorted(origin.keys() | found.keys()):
        if found.get(name) != origin.get(name):
            raise TeacherOutputsFileError(
                f"{path}: contains different outputs: {name} is {found.get(name)!r}, expected {origin.get(name)!r}"
            )
    size = shape[1] * DTYPES[dtype].itemsize
    with _naming_the_file(path):
        content = _contiguous_rows(reader, rows=shape[0], size=size)
    damaged = [
        number for number, pair in enumerate(zip_longest(_checksums(content), header["checksums"])) if len({*pair}) > 1
    ]
    if damaged:
        raise TeacherOutputsFileError(f"{path}: damaged: wrong checksums in blocks {damaged} of {_BLOCK_BYTES} bytes")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="The given buffer is not writable")
        return torch.frombuffer(content, dtype=DTYPES[dtype]).view(shape)


@contextmanager
def _naming_the_file(path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError, LookupError, TypeError) as error:
        raise TeacherOutputsFileError(f"{path}: not a complete teacher outputs file ({error})") from error


def _read_header(schema: pa.Schema) -> dict[str, Any]:
    stored = json.loads((schema.metadata or {})[_HEADER])
    text = stored["text"].encode()
    if zlib.crc32(text) != stored["checksum"]:
        raise ValueError("the metadata are damaged")
    header: dict[str, Any] = json.loads(text)
    return header


def _contiguous_rows(reader: pa.ipc.RecordBatchFileReader, *, rows: int, size: int) -> memoryview:
    expected = _schema(size)
    if not reader.schema.equals(expected) or reader.num_record_batches != 1:
        raise ValueError(
            f"it has {reader.num_record_batches} batches of {reader.schema.types}, expected 1 of {expected.types}"
        )
    batch = reader.get_batch(0)
    batch.validate(full=True)
    column = batch.column(0)
    content = memoryview(column.buffers()[1])[: rows * size]
    if len(column) != rows or len(content) != rows * size or column.null_count or column.offset:
        raise ValueError(f"it has {len(column)} rows, expected {rows} without gaps")
    return content


def _schema(size: int, metadata: dict[bytes, str] | None = None) -> pa.Schema:
    return pa.schema([pa.field(_COLUMN, pa.binary(size), nullable=False)], metadata=metadata)


def _checksums(content: memoryview) -> list[int]:
    return [zlib.crc32(content[start : start + _BLOCK_BYTES]) for start in range(0, len(content), _BLOCK_BYTES)]
