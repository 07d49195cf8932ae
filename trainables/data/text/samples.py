"""Readers of GLUE files. Errors about invalid rows name file and row number.

The TSV files are not CSV: quotes have no special meaning. Only a line feed, optionally after a carriage return, ends a
row, because sentences contain other characters defined as line ends by Unicode.
"""

import hashlib
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import Final, NamedTuple

import numpy as np

from trainables.data.sources import DataError, unpacked
from trainables.spec.glue import GlueTask

_SHOWN: Final = 40


class Samples(NamedTuple):
    """Texts with labels.

    Args:
        texts: N first texts and, for tasks on pairs, N second texts.
        labels: (N,) int64.
    """

    texts: tuple[list[str], ...]
    labels: np.ndarray

    @property
    def digest(self) -> str:
        """Sha256 of texts and labels, hexadecimal; independent of the file format."""
        content = hashlib.sha256(f"{len(self.texts)}|{len(self.labels)}".encode())
        for column in self.texts:
            for text in map(str.encode, column):
                content.update(b"%d|" % len(text) + text)
        content.update(self.labels.astype("<i8").tobytes())
        return content.hexdigest()


def read_samples(task: GlueTask, path: Path, *, training: bool) -> Samples:
    """Read all rows in a file.

    Args:
        task: GLUE task.
        path: TSV or Parquet file, optionally compressed.
        training: whether the file is the training part.

    Raises:
        DataError: the file is invalid. The message names file, row and problem.
    """
    name = path.name.removesuffix(path.suffix) if path.suffix in (".gz", ".xz") else path.name
    if name.endswith(".parquet"):
        samples = _read_parquet(task, path)
    else:
        samples = read_tsv(task, path, unpacked(path), broken_rows=task.broken_rows if training else 0)
    expected = task.rows[0 if training else 1]
    if abs(len(samples.labels) - expected) > (task.broken_rows if training else 0):
        raise DataError(
            f"{path}: {len(samples.labels):,} samples; the {'training' if training else 'development'} part of "
            f"{task.title} has {expected:,}: truncated, or a different version?"
        )
    return samples


def read_tsv(task: GlueTask, path: Path, content: bytes, *, broken_rows: int = 0) -> Samples:
    """Parse the rows of a TSV file.

    Args:
        task: GLUE task.
        path: file name for messages.
        content: file content, UTF-8.
        broken_rows: maximum number of rows with a wrong number of cells. Such rows are skipped with a warning.

    Raises:
        DataError: the file is invalid. The message names file, row and problem. Rows are counted from 1, the header
            included.
    """
    try:
        lines = content.decode("utf-8-sig").split("\n")
    except UnicodeDecodeError as error:
        row = content[: error.start].count(b"\n") + 1
        raise DataError(f"{path}, row {row}: not UTF-8 (byte {content[error.start]:#04x})") from error
    if lines[-1] == "":
        lines.pop()
    rows = [line.removesuffix("\r").split("\t") for line in lines]
    if not rows:
        raise DataError(f"{path}: the file is empty")
    width, columns, label_column, first = _columns(task, path, rows[0])
    if len(rows) == first:
        raise DataError(f"{path}: has a header but no samples")
    classes = {spelling: label for label, spelling in enumerate(task.spellings)}
    texts: tuple[list[str], ...] = tuple([] for _ in columns)
    labels, broken = [], 0
    for number, cells in enumerate(rows[first:], start=first + 1):
        if len(cells) != width:
            broken += 1
            if broken > broken_rows:
                raise DataError(f"{path}, row {number}: {len(cells)} cells, expected {width}: {_shown(cells)}")
            continue
        label = classes.get(cells[label_column])
        if label is None:
            raise DataError(
                f"{path}, row {number}: unknown label {cells[label_column]!r}; {task.title} has "
                f"{', '.join(task.spellings)}"
            )
        labels.append(label)
        for column, values in zip(columns, texts, strict=True):
            values.append(cells[column])
    if broken:
        warnings.warn(f"{path}: skipped {broken} rows with the wrong number of cells", stacklevel=2)
    if not labels:
        raise DataError(f"{path}: contains no complete row")
    return Samples(texts, np.array(labels, dtype=np.int64))


def _columns(task: GlueTask, path: Path, header: Sequence[str]) -> tuple[int, list[int], int, int]:
    """Return the number of columns, the text columns, the label column, and the index of the first sample row."""
    if task.columns_without_header:
        return task.columns_without_header, [int(column) for column in task.columns], int(task.label_column), 0
    wanted = (*task.columns, task.label_column)
    missing = [name for name in wanted if name not in header]
    if missing:
        raise DataError(
            f"{path}, row 1: no column {', '.join(map(repr, missing))}; {task.title} needs "
            f"{', '.join(map(repr, wanted))}, the header has {_shown(header)}"
        )
    return len(header), [header.index(name) for name in task.columns], header.index(task.label_column), 1


def _shown(cells: Sequence[str]) -> str:
    return " | ".join(cell if len(cell) <= _SHOWN else cell[:_SHOWN] + "…" for cell in cells[:12])


def _read_parquet(task: GlueTask, path: Path) -> Samples:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        table = pq.read_table(pa.BufferReader(unpacked(path)))
    except (pa.ArrowException, OSError) as error:
        raise DataError(f"{path}: not a complete Parquet file ({error})") from error
    wanted = (*task.parquet_columns, "label")
    missing = [name for name in wanted if name not in table.column_names]
    if missing:
        raise DataError(
            f"{path}: no column {', '.join(map(repr, missing))}; {task.title} needs {', '.join(map(repr, wanted))}, "
            f"the file has {', '.join(map(repr, table.column_names))}"
        )
    for name in wanted:
        kind, text = table.schema.field(name).type, name != "label"
        if not ((pa.types.is_string(kind) or pa.types.is_large_string(kind)) if text else pa.types.is_integer(kind)):
            raise DataError(f"{path}: column {name!r} holds {kind}, expected {'text' if text else 'integers'}")
        if table[name].null_count:
            row = table[name].is_null().to_pylist().index(True)
            raise DataError(f"{path}, row {row + 1}: no value in column {name!r}")
    if not len(table):
        raise DataError(f"{path}: contains no samples")
    labels = table["label"].to_numpy().astype(np.int64)
    wrong = np.flatnonzero((labels < 0) | (labels >= len(task.labels)))
    if len(wrong):
        raise DataError(
            f"{path}, row {wrong[0] + 1}: unknown label {labels[wrong[0]]}; {task.title} has 0 to "
            f"{len(task.labels) - 1}"
        )
    return Samples(tuple(table[name].to_pylist() for name in task.parquet_columns), labels)
