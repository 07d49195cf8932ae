"""Cache of decoded datasets, memory-mapped by all processes on a machine.

For each part (train, validation or test), the cache holds the images, the labels, and the pixel sums for means and
deviations. The cache also holds one padded and mirrored copy of the images for each view table in use. The key of a
part is a hash of the files' content; for image files it is a hash of paths, labels, sizes and modification times.
Cached files are verified when they are mapped, and rebuilt if verification fails. If the cache is not writable, each
process keeps everything in memory.
"""

import hashlib
import json
import warnings
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Final, Protocol

import numpy as np
import PIL
import torch
from torch import Tensor

from trainables.data.folders import LabelledFiles, decode_images, folder_files, labels_of, tiny_imagenet_files
from trainables.data.image_folder import Part, list_image_folder
from trainables.data.image_scan import check_peaks
from trainables.data.sources import read_files
from trainables.data.views import ViewTable, padded_pixels
from trainables.spec.datasets import FOLDER_PREFIX, DatasetInfo
from trainables.storage.atomic import StoredFileError, locked
from trainables.storage.rows import map_rows, write_rows
from trainables.storage.tensors import read_tensors, write_tensors

_FORMAT: Final = 1  # increase it when decoding changes
_IMAGE_FORMAT: Final = f"2 Pillow {PIL.__version__}"  # format of image files, which Pillow decodes
_CHUNK: Final = 1024


@dataclass(frozen=True)
class Decoded:
    """All samples in one part of a dataset.

    Args:
        images: (N, C, H, W) uint8, channels last in memory. Mapped and read-only if there is a cache.
        labels: (N,) int64.
        sums: (N, C) int64, pixel sum per image.
        squares: (N, C) int64, sum of squared pixels per image.
        digest: sha256 of images and labels, hexadecimal.
        folder: cache folder; None if it is not writable.
    """

    images: Tensor
    labels: np.ndarray
    sums: Tensor
    squares: Tensor
    digest: str
    folder: Path | None

    def pixels(self, table: ViewTable) -> Tensor:
        """Return `padded_pixels` of the images, mapped if there is a cache."""
        if self.folder is None:
            return padded_pixels(self.images, table)
        origin = {"digest": self.digest, "table": asdict(table)}
        text = json.dumps(origin, sort_keys=True)
        path = self.folder / f"views-{hashlib.sha256(text.encode()).hexdigest()[:16]}.arrow"
        count, channels, height, width = self.images.shape
        shape = (
            count * (2 if any(table.mirrored) else 1), height + 2 * table.padding, width + 2 * table.padding, channels
        )  # fmt: skip
        rows = (shape[0], shape[1] * shape[2] * shape[3])
        origin = json.loads(text)  # as read back from the file, with lists instead of tuples
        try:
            with locked(self.folder / "lock"):
                if (found := _mapped(path, origin, rows)) is None:
                    write_rows(path, padded_pixels(self.images, table).view(rows), origin)
                    found = map_rows(path, origin, shape=rows, dtype="uint8")
            return found.view(shape)
        except OSError as error:
            _warn(self.folder, error)
            return padded_pixels(self.images, table)


def decode_part(info: DatasetInfo, root: Path | None, part: Part, cache: Path) -> Decoded:
    """Load one dataset part from the cache, decoding it first if necessary.

    Args:
        info: the dataset, with files under `root`.
        root: data root; unused for image folders.
        part: part to load.
        cache: folder for decoded datasets; need not exist.

    Raises:
        DataError: a file is damaged or does not fit the dataset. The message names the file.
    """
    return decode_source(_Source(info, root, part), f"{info.name.split(':')[0]}-{part}", cache)


class Source(Protocol):
    """Samples of one dataset part, not decoded yet.

    Attributes:
        key: hash of everything relevant for the result of `decode`.
    """

    key: str

    def decode(self, scratch: Path | None = None) -> tuple[Tensor, np.ndarray]:
        """Decode the images (N, C, H, W) uint8, channels last in memory, and the labels (N,) int64."""
        ...


def decode_source(source: Source, title: str, cache: Path) -> Decoded:
    """Load one dataset part from the cache, decoding it first if necessary.

    Args:
        source: the samples.
        title: beginning of the cache folder's name.
        cache: folder for decoded datasets; need not exist.

    Raises:
        DataError: the samples cannot be used.
    """
    folder = cache / f"{title}-{source.key[:16]}"
    try:
        with locked(folder / "lock"):
            found = _read(folder, source)
            if found is None:
                _write(folder, source, source.decode(folder))
                found = _read(folder, source)
        if found is not None:
            return found
    except OSError as error:
        _warn(folder, error)
    images, labels = source.decode()
    sums, squares = _moments(images)
    return Decoded(images, labels, sums, squares, _digest(images, labels), None)


class _Source:
    """Files of one dataset part."""

    def __init__(self, info: DatasetInfo, root: Path | None, part: Part) -> None:
        self.info = info
        self._part = part
        self._files = info.find_files(root) or {}
        self._listed: LabelledFiles | None = None
        self._folder: Path | None = None  # file names in errors are relative to it
        if info.name.startswith(FOLDER_PREFIX):
            self._folder = Path(info.name.removeprefix(FOLDER_PREFIX))
            self._listed = folder_files(list_image_folder(self._folder), part)
        elif info.name == "tiny_imagenet":
            self._listed = tiny_imagenet_files(info, self._files, part)
        form = _FORMAT if self._listed is None else _IMAGE_FORMAT
        what = [form, info.name.split(":")[0], part, info.channels, info.stored_size, *self._contents()]
        self.key = hashlib.sha256(json.dumps(what).encode()).hexdigest()

    def _contents(self) -> Iterator[Any]:
        if self._listed is None:
            for name, path in self._files.items():
                with path.open("rb") as file:
                    yield [name, path.suffix, hashlib.file_digest(file, "sha256").hexdigest()]
        else:  # thousands of files: size and modification time instead of content
            for path, label in self._listed:
                try:
                    status = path.stat()
                except OSError:  # decoding the file reports the reason
                    yield [str(path), label]
                    continue
                yield [str(path), label, status.st_size, status.st_mtime_ns]

    def decode(self, scratch: Path | None = None) -> tuple[Tensor, np.ndarray]:
        """Decode the images (N, C, H, W) uint8, channels last in memory, and the labels (N,) int64.

        Args:
            scratch: see `decode_images`.
        """
        if self._listed is not None:
            paths = [path for path, _ in self._listed]
            images, peaks = decode_images(
                self.info, paths, size=self.info.stored_size, folder=self._folder, scratch=scratch
            )
            if self._part == "train":
                check_peaks(peaks)
            return images, labels_of(self._listed)
        pixels, labels = read_files(self.info, self._files, self._part)
        return torch.from_numpy(np.array(pixels.transpose(0, 2, 3, 1), order="C")).permute(0, 3, 1, 2), labels


def _write(folder: Path, source: Source, decoded: tuple[Tensor, np.ndarray]) -> None:
    images, labels = decoded
    sums, squares = _moments(images)
    write_rows(folder / "images.arrow", _rows(images), {"key": source.key})
    tensors = {"labels": torch.from_numpy(labels), "sums": sums, "squares": squares}
    metadata = {"key": source.key, "digest": _digest(images, labels), "shape": list(images.shape)}
    write_tensors(folder / "samples.safetensors", tensors, metadata)  # written last: it marks the part as complete


def _read(folder: Path, source: Source) -> Decoded | None:
    try:
        tensors, metadata = read_tensors(folder / "samples.safetensors")
    except StoredFileError:
        return None
    if metadata["key"] != source.key:
        return None
    count, channels, height, width = metadata["shape"]
    rows = _mapped(folder / "images.arrow", {"key": source.key}, (count, height * width * channels))
    if rows is None:
        return None
    images = rows.view(count, height, width, channels).permute(0, 3, 1, 2)
    labels = tensors["labels"].numpy()
    return Decoded(images, labels, tensors["sums"], tensors["squares"], metadata["digest"], folder)


def _mapped(path: Path, origin: dict[str, Any], shape: tuple[int, int]) -> Tensor | None:
    try:
        return map_rows(path, origin, shape=shape, dtype="uint8")
    except (FileNotFoundError, StoredFileError):
        return None


def _rows(images: Tensor) -> Tensor:
    return images.permute(0, 2, 3, 1).flatten(1)


def _moments(images: Tensor) -> tuple[Tensor, Tensor]:
    """Compute pixel sum and squared pixel sum per image, (N, C) int64 each."""
    sums, squares = [], []
    for chunk in images.split(_CHUNK):
        pixels = chunk.flatten(2).to(torch.int32)
        sums.append(pixels.sum(2, dtype=torch.int64))
        squares.append(pixels.square().sum(2, dtype=torch.int64))
    return torch.cat(sums), torch.cat(squares)


def _digest(images: Tensor, labels: np.ndarray) -> str:
    content = hashlib.sha256(f"{tuple(images.shape)}".encode())
    for chunk in images.split(_CHUNK):
        content.update(_rows(chunk).numpy().data)
    content.update(labels.astype("<i8").tobytes())
    return content.hexdigest()


def _warn(folder: Path, error: OSError) -> None:
    warnings.warn(
        f"{folder}: cannot cache decoded data there ({error}); each process decodes its own copy", stacklevel=3
    )
