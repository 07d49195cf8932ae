"""Datasets that are folders of image files: decoded by Pillow, resized by torchvision."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
from torch import Tensor
from torchvision.transforms.v2 import functional as transforms

from trainables.data.image_folder import ImageFolder, Part, is_hidden, is_image_name
from trainables.data.image_pixels import ImageError, read_pixels
from trainables.data.image_progress import with_progress
from trainables.data.image_scan import run_in_threads, unusable
from trainables.data.sources import DataError, unpacked
from trainables.spec.datasets import DatasetInfo

LabelledFiles = list[tuple[Path, int]]
_MUCH: Final = 1 << 30


def folder_files(listed: ImageFolder, part: Part) -> LabelledFiles:
    """The image files of one part of a folder with their labels, in the order of classes and names."""
    return [(listed.path / name, label) for name, label in listed.files(part)]


def tiny_imagenet_files(info: DatasetInfo, files: Mapping[str, Path], part: Part) -> LabelledFiles:
    """The same of Tiny ImageNet, whose classes are numbered by the order of their sorted names.

    Raises:
        DataError: naming a list that is damaged, or a class without images.
    """
    wnids, train, annotations, images = files.values()
    names = sorted(unpacked(wnids).decode(errors="replace").split())
    if len(set(names)) != info.num_classes:
        raise DataError(f"{wnids}: {len(set(names))} classes, expected {info.num_classes}")
    labels = {name: label for label, name in enumerate(names)}
    if part == "train":
        return [(path, labels[name]) for name in names for path in _images_in(train / name / "images")]
    found = []
    for number, line in enumerate(unpacked(annotations).decode(errors="replace").splitlines(), start=1):
        image, name = (*line.split("\t"), "", "")[:2]
        if name not in labels:
            raise DataError(f"{annotations}, line {number}: class {name!r} is not in {wnids}")
        found.append((images / image, labels[name]))
    return found


def _images_in(folder: Path) -> list[Path]:
    found = sorted(path for path in folder.glob("*") if is_image_name(path.name) and not is_hidden(path.name))
    if not found:
        raise DataError(f"{folder}: no image in it")
    return found


def decode_images(
    info: DatasetInfo, files: Sequence[Path], *, size: int, folder: Path | None = None, scratch: Path | None = None
) -> tuple[Tensor, list[int]]:
    """Image files as one tensor.

    Images of a size that networks take are kept as they are, and must all have it. Photographs are resized
    (antialiased, bilinear) so that the shorter side has `size` pixels, and the square in the middle is kept.

    Args:
        info: the dataset: channels, and whether it holds photographs.
        files: N of them.
        size: height and width wanted.
        folder: that files are named relative to in errors, if it holds them all.
        scratch: folder for a nameless file that holds the result while it is used, if it takes much memory.

    Returns:
        (N, C, size, size) uint8, in memory with the channels last; and the largest value of each 16-bit image.

    Raises:
        UnusableImagesError: naming every file that is damaged or has another size.
    """
    images = _room((len(files), size, size, info.channels), scratch)
    results = run_in_threads(partial(_decode, info, size), files, threads=torch.get_num_threads())
    problems: dict[str, str] = {}
    peaks: list[int] = []
    for number, result in enumerate(with_progress(results, "decoding images", len(files))):
        if isinstance(result, ImageError):
            path = files[number]
            problems[str(path if folder is None else path.relative_to(folder))] = str(result)
            continue
        images[number], peak = result
        peaks += [peak] if peak is not None else []
    if problems:
        raise unusable(folder, problems, len(files))
    return images.permute(0, 3, 1, 2), peaks


def _room(shape: tuple[int, ...], scratch: Path | None) -> Tensor:
    """A tensor of bytes to write to."""
    if scratch is None or math.prod(shape) < _MUCH:
        return torch.empty(shape, dtype=torch.uint8)
    with tempfile.TemporaryFile(dir=scratch) as file:
        return torch.from_numpy(np.memmap(file, np.uint8, "w+", shape=shape))  # keeps the file as long as it lives


def _decode(info: DatasetInfo, size: int, path: Path) -> tuple[Tensor, int | None]:
    """(H, W, C) uint8, and the largest value of a 16-bit image."""
    array, peak = read_pixels(path, "L" if info.channels == 1 else "RGB")
    if info.resized_crops:
        image = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))
        image = transforms.center_crop(transforms.resize(image, [size], antialias=True), [size, size])
        return image.permute(1, 2, 0), peak
    if array.shape[:2] != (size, size):
        raise ImageError(f"{array.shape[1]} x {array.shape[0]} pixels, the dataset has {size} x {size}")
    return torch.from_numpy(array.copy()), peak


def labels_of(files: LabelledFiles) -> np.ndarray:
    """(N,) int64."""
    return np.array([label for _, label in files], dtype=np.int64)
