"""Tables of images and labels: Parquet, Arrow and Feather files, as written by Hugging Face `datasets`.

An image is a struct of `bytes` and `path`, plain bytes of an encoded image, or a list of pixels. Class names are read
from the column description stored in the schema by `datasets`.
"""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import numpy as np
import pyarrow as pa
import pyarrow.ipc as ipc
import pyarrow.parquet as pq

from trainables.data.image_folder import Part, shown
from trainables.data.own.raw import (
    PART_WORDS,
    EncodedImages,
    RawData,
    RawPart,
    check_parts,
    few,
    with_test,
)
from trainables.data.sources import DataError
from trainables.display.nearest import did_you_mean

SUFFIXES: Final = (".parquet", ".arrow", ".feather", ".ipc")
_IMAGE_NAMES: Final = ("image", "img", "images", "pixels", "pixel_values", "picture")
_LABEL_NAMES: Final = ("label", "labels", "class", "target", "targets", "y", "category", "fine_label")


def table_files(path: Path) -> list[Path]:
    """List the tables at a path: the file itself, or all files below a folder, sorted."""
    if not path.is_dir():
        return [path] if path.suffix in SUFFIXES else []
    return sorted(
        each
        for each in path.rglob("*")
        if each.suffix in SUFFIXES
        and each.is_file()
        and not any(p.startswith(".") for p in each.relative_to(path).parts)
    )


def read_tables(path: Path, options: Mapping[str, str]) -> RawData:
    """Read one table, or the tables of a folder, named train, validation and test as files or as folders.

    Raises:
        DataError: a file cannot be read, or the file's part or columns are not clear. The message names the option to
            give.
    """
    where, files = shown(path), table_files(path)
    by_part: dict[Part, list[Path]] = {}
    unnamed = []
    for file in files:
        part = _part_of(file.relative_to(path) if path.is_dir() else Path(file.name))
        if part is None:
            unnamed.append(file)
        else:
            by_part.setdefault(part, []).append(file)
    if unnamed and by_part:
        names = few(shown(each.relative_to(path)) for each in unnamed)
        raise DataError(f"{where}: {names} belong to no part, but other files do: name files or their folders train, "
                        "validation or test")  # fmt: skip
    if not path.is_dir() or unnamed:  # one table; the name does not matter
        by_part = {"train": files}
    tables = {part: _read_all(each, options) for part, each in by_part.items()}
    return data_of_tables(tables, where, options)


def data_of_tables(tables: Mapping[Part, pa.Table], where: str, options: Mapping[str, str]) -> RawData:
    """Find images and labels in all parts' tables.

    Args:
        tables: table by part.
        where: place for errors.
        options: `image` and `label` name the columns.

    Raises:
        DataError: a column is missing, is ambiguous, or contains neither images nor labels.
    """
    parts: dict[Part, RawPart] = {}
    for part, table in tables.items():
        place = f"{where}: {part}"
        image = _column(table.schema, "image", options, place)
        label = _column(table.schema, "label", options, place)
        parts[part] = RawPart(
            _images(table.column(image), f"{place}, column {image}"),
            _labels(table.column(label), f"{place}, column {label}"),
            place,
            _class_names(table.schema, label),
        )
    parts, notes = with_test(parts)
    check_parts(where, parts)
    return RawData(where, parts, options.get("views", ""), notes)


def _part_of(path: Path) -> Part | None:
    """Return the part named at the start of a file name, as in `train-00000-of-00002.parquet`, or by the folder."""
    for name in (path.name, *reversed(path.parts[:-1])):
        word = name.lower().replace("_", "-").replace(".", "-").partition("-")[0]
        if word in PART_WORDS:
            return PART_WORDS[word]
    return None


def _read_all(files: Sequence[Path], options: Mapping[str, str]) -> pa.Table:
    tables = [_read(file, options) for file in files]
    try:
        return pa.concat_tables(tables)
    except pa.ArrowException as error:
        raise DataError(f"{shown(files[0])} and {few(each.name for each in files[1:])} have different columns "
                        f"({str(error).splitlines()[0]})") from None  # fmt: skip


def _read(path: Path, options: Mapping[str, str]) -> pa.Table:
    """Read the two needed columns."""
    place = shown(path)
    try:
        if path.suffix == ".parquet":
            schema = pq.read_schema(path)
            return pq.read_table(path, columns=_needed(schema, options, place), partitioning=None)
        source = pa.memory_map(str(path))
        try:
            table = ipc.open_file(source).read_all()
        except pa.ArrowInvalid:
            source.seek(0)
            table = ipc.open_stream(source).read_all()
        return table.select(_needed(table.schema, options, place))
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{place}: not a complete {path.suffix.removeprefix('.')} file "
                        f"({(str(error) or type(error).__name__).splitlines()[0]})") from None  # fmt: skip


def _needed(schema: pa.Schema, options: Mapping[str, str], place: str) -> list[str]:
    return [_column(schema, kind, options, place) for kind in ("image", "label")]


def _column(schema: pa.Schema, kind: str, options: Mapping[str, str], place: str) -> str:
    """Return the name of the image or label column."""
    names = list(schema.names)
    columns = f"columns: {few(names)}"
    if kind in options:
        if options[kind] not in names:
            raise DataError(
                f"{place}: there is no column {options[kind]!r}{did_you_mean(options[kind], names)} {columns}"
            )
        return options[kind]
    usual = _IMAGE_NAMES if kind == "image" else _LABEL_NAMES
    if usual[0] in names:
        return usual[0]
    able = [name for name in names if _fits(schema.field(name).type, kind)]
    found = [name for name in able if name.lower() in usual or (kind == "label" and name.endswith("_label"))]
    if not found and kind == "image":
        found = able
    if len(found) != 1:
        what = f"{few(found)} may be the {kind}s" if found else f"no column is known as {kind}s"
        raise DataError(f"{place}: {what}: name one by ,{kind}=COLUMN after the dataset's name; {columns}")
    return found[0]


def _fits(kind: pa.DataType, what: str) -> bool:
    kind = _storage(kind)
    if what == "label":
        return not (pa.types.is_struct(kind) or pa.types.is_binary(kind))
    return pa.types.is_struct(kind) or pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or _is_list(kind)


def _storage(kind: pa.DataType) -> pa.DataType:
    return kind.storage_type if isinstance(kind, pa.BaseExtensionType) else kind


def _is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)


def _images(column: pa.ChunkedArray, where: str) -> "np.ndarray | EncodedImages":
    if column.null_count:
        rows = [number for number, valid in enumerate(column.is_valid().to_pylist()) if not valid]
        raise DataError(f"{where}: {len(rows):,} rows have no image, the first is row {rows[0]}: remove them")
    kind = _storage(column.type)
    if pa.types.is_struct(kind):
        if "bytes" not in [field.name for field in kind]:
            raise DataError(f"{where}: a struct of {few(field.name for field in kind)}; an image has bytes and path")
        return EncodedImages(_Files(column))
    if pa.types.is_binary(kind) or pa.types.is_large_binary(kind):
        return EncodedImages(column)
    if _is_list(kind):
        return _array_of_lists(column, where)
    raise DataError(f"{where}: values of type {column.type} are no images: give encoded images (bytes, or struct of "
                    "bytes and path), or lists of pixels")  # fmt: skip


class _Files:
    """Rows of an image column: bytes or, without bytes, a file path."""

    def __init__(self, column: pa.ChunkedArray) -> None:
        self._column = column

    def __len__(self) -> int:
        return len(self._column)

    def __getitem__(self, index: int) -> bytes:
        row = self._column[index].as_py()
        if row["bytes"] is not None:
            return bytes(row["bytes"])
        try:
            return Path(row.get("path") or "").read_bytes()
        except OSError:  # reported as an empty image, with the row
            return b""


def _array_of_lists(column: pa.ChunkedArray, where: str) -> np.ndarray:
    """Return an array (N, ...) from lists of one shape, nested or not."""
    values: Any = column.combine_chunks()
    if isinstance(values, pa.ChunkedArray):
        values = pa.concat_arrays(values.chunks)
    if isinstance(values, pa.ExtensionArray):
        values = values.storage
    shape = [len(values)]
    while _is_list(values.type):
        lengths = values.value_lengths().unique().to_pylist()
        if len(lengths) != 1 or lengths[0] is None:
            raise DataError(f"{where}: images of different sizes; resize them to one size, or store encoded images (PNG"
                            " or JPEG), which are resized")  # fmt: skip
        shape.append(lengths[0])
        values = values.flatten()
    if values.null_count:
        raise DataError(f"{where}: {values.null_count:,} pixels are missing: mend or remove these images")
    return values.to_numpy(zero_copy_only=False).reshape(shape)


def _labels(column: pa.ChunkedArray, where: str) -> Any:
    if column.null_count:
        rows = [number for number, valid in enumerate(column.is_valid().to_pylist()) if not valid]
        raise DataError(f"{where}: {len(rows):,} labels are missing, the first of row {rows[0]}: remove these rows")
    if pa.types.is_dictionary(column.type):
        column = column.cast(column.type.value_type)
    if _is_list(_storage(column.type)):
        return _array_of_lists(column, where)
    if pa.types.is_integer(column.type) or pa.types.is_floating(column.type):
        return column.to_numpy()
    return column.to_pylist()


def _class_names(schema: pa.Schema, label: str) -> tuple[str, ...]:
    """Return the class names stored by `datasets` for a label column."""
    try:
        features = json.loads((schema.metadata or {})[b"huggingface"])["info"]["features"]
        return tuple(map(str, features[label].get("names") or ()))
    except (KeyError, ValueError, TypeError, AttributeError):
        return ()
