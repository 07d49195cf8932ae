"""Readers of published dataset files. Errors about damaged files name the file."""

import gzip
import io
import lzma
import pickle
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final

import numpy as np

from trainables.data.image_folder import Part
from trainables.spec.datasets import DatasetInfo

# Each row in CIFAR's binary files begins with the labels. In CIFAR-100 the coarse label comes first.
_CIFAR_LABEL_BYTES: Final = {"cifar10": 1, "cifar100": 2}
_CIFAR_LABEL_KEYS: Final = {"cifar10": "labels", "cifar100": "fine_labels"}
_IDX_UBYTE: Final = 0x08
LARGEST_FILE: Final = 2**30  # bytes; the largest dataset file has 184 million


def _latin1(text: str, encoding: str) -> bytes:
    """Encode text as latin-1. In old pickle protocols, Python 3 stores bytes as a call of this kind."""
    if encoding != "latin1":
        raise pickle.UnpicklingError(f"it encodes text as {encoding}, which a dataset file never needs")
    return text.encode("latin1")


# Objects used in the pickled dictionaries of CIFAR's Python version, under the names of old and new NumPy versions.
_PICKLED: Final = {
    **{(f"numpy.{core}.multiarray", "_reconstruct"): np.zeros(0).__reduce__()[0] for core in ("core", "_core")},
    ("_codecs", "encode"): _latin1,
    ("numpy", "ndarray"): np.ndarray,
    ("numpy", "dtype"): np.dtype,
}


class DataError(ValueError):
    """Dataset file cannot be used."""


def read_files(info: DatasetInfo, files: Mapping[str, Path], part: Part) -> tuple[np.ndarray, np.ndarray]:
    """Read all samples in one dataset part, in file order.

    Args:
        info: a dataset with `layouts`.
        files: path by name in the layout, as returned by `DatasetInfo.find_files`.
        part: part to read.

    Returns:
        Images (N, C, H, W) uint8 and labels (N,) int64.

    Raises:
        DataError: a file is damaged or does not fit the dataset. The message names the file and the problem.
    """
    names = [name for name in files if _is_test(name) == (part == "test")]
    if info.name in _CIFAR_LABEL_BYTES:
        read = _read_cifar_binary if names[0].endswith(".bin") else _read_cifar_python
        parts = [read(info, files[name]) for name in names]
        images, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
    else:
        images_file, labels_file = (files[name] for name in names)
        images = _read_idx(images_file, (info.image_size, info.image_size))[:, None]
        labels = _check_labels(info, labels_file, _read_idx(labels_file, ()))
        if len(images) != len(labels):
            raise DataError(f"{images_file} has {len(images)} images, but {labels_file} has {len(labels)} labels")
    expected = info.split_sizes[2] if part == "test" else sum(info.split_sizes[:2])
    if len(labels) != expected:
        where = ", ".join(str(files[name]) for name in names)
        raise DataError(f"{where}: {len(labels)} samples, but the {part} part of {info.name} has {expected}")
    return images, labels


def unpacked(path: Path) -> bytes:
    """Read a file, and decompress it if the name ends in .gz or .xz.

    Raises:
        DataError: the file cannot be read or decompressed to the end, or is larger than any dataset file. The message
            names the file.
    """
    try:
        with _opened(path) as file:
            content = file.read(LARGEST_FILE + 1)
    except (OSError, EOFError, lzma.LZMAError, zlib.error) as error:
        raise DataError(f"{path}: truncated or damaged ({error})") from error
    if len(content) > LARGEST_FILE:
        raise DataError(f"{path}: more than {LARGEST_FILE:,} bytes unpacked, larger than any dataset file")
    return content


def _opened(path: Path) -> BinaryIO | gzip.GzipFile | lzma.LZMAFile:
    if path.suffix == ".gz":
        return gzip.open(path)
    return lzma.open(path) if path.suffix == ".xz" else path.open("rb")


def _is_test(name: str) -> bool:
    return Path(name).name.startswith(("test", "t10k"))


def _read_idx(path: Path, item: tuple[int, ...]) -> np.ndarray:
    """Read an IDX file: two zero bytes, type, number of dimensions, each size as 4 bytes, items."""
    content = unpacked(path)
    dimensions = 1 + len(item)
    header = 4 + 4 * dimensions
    if len(content) < header or tuple(content[:4]) != (0, 0, _IDX_UBYTE, dimensions):
        raise DataError(f"{path}: not an IDX file of unsigned bytes with {dimensions} dimensions")
    count, *sizes = (int(size) for size in np.frombuffer(content, ">u4", dimensions, offset=4))
    if tuple(sizes) != item:
        raise DataError(f"{path}: items of {_shape_text(sizes)} pixels, expected {_shape_text(item)}")
    expected = header + count * int(np.prod(item, dtype=np.int64))
    if len(content) != expected:
        raise DataError(
            f"{path}: {len(content)} bytes unpacked, but the header announces {expected}: truncated or damaged"
        )
    return np.frombuffer(content, np.uint8, offset=header).reshape(count, *item)


def _shape_text(sizes: "tuple[int, ...] | list[int]") -> str:
    return " x ".join(map(str, sizes)) or "1"


def _read_cifar_binary(info: DatasetInfo, path: Path) -> tuple[np.ndarray, np.ndarray]:
    content = unpacked(path)
    label_bytes = _CIFAR_LABEL_BYTES[info.name]
    row = label_bytes + info.channels * info.image_size**2
    if not content or len(content) % row:
        raise DataError(
            f"{path}: {len(content)} bytes unpacked, not a multiple of the row size of {row} bytes: truncated?"
        )
    rows = np.frombuffer(content, np.uint8).reshape(-1, row)
    images = rows[:, label_bytes:].reshape(-1, info.channels, info.image_size, info.image_size)
    return images, _check_labels(info, path, rows[:, label_bytes - 1])


def _read_cifar_python(info: DatasetInfo, path: Path) -> tuple[np.ndarray, np.ndarray]:
    try:
        found = _ArraysOnly(io.BytesIO(unpacked(path)), encoding="latin1").load()
        pixels, labels = found["data"], np.asarray(found[_CIFAR_LABEL_KEYS[info.name]])
    except DataError:
        raise
    except Exception as error:  # a damaged pickle can raise any exception
        raise DataError(f"{path}: not a complete batch of {info.name}'s Python version ({error!r})") from error
    row = info.channels * info.image_size**2
    if not isinstance(pixels, np.ndarray) or pixels.dtype != np.uint8 or pixels.shape != (len(labels), row):
        shape = getattr(pixels, "shape", type(pixels).__name__)
        raise DataError(f"{path}: images of shape {shape} for {len(labels)} labels, expected rows of {row} bytes")
    images = pixels.reshape(-1, info.channels, info.image_size, info.image_size)
    return images, _check_labels(info, path, labels)


class _ArraysOnly(pickle.Unpickler):
    """Unpickler for dictionaries, lists, strings, numbers and arrays. It calls nothing else named in a file."""

    def find_class(self, module: str, name: str) -> Any:
        try:
            return _PICKLED[module, name]
        except KeyError:
            raise pickle.UnpicklingError(f"it refers to {module}.{name}, which a dataset file never needs") from None


def _check_labels(info: DatasetInfo, path: Path, labels: np.ndarray) -> np.ndarray:
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise DataError(f"{path}: labels are not a list of integers")
    wrong = np.flatnonzero((labels < 0) | (labels >= info.num_classes))
    if len(wrong):
        raise DataError(
            f"{path}: label {labels[wrong[0]]} of sample {wrong[0]} is outside {info.name}'s range 0 to "
            f"{info.num_classes - 1} ({len(wrong)} such labels)"
        )
    return labels.astype(np.int64)
