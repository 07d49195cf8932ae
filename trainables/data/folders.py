"""Datasets that are folders of image files, decoded and resized by torchvision."""

import math
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Final

import numpy as np
import torch
import torchvision
from torch import Tensor
from torchvision.io import ImageReadMode
from torchvision.transforms.v2 import functional as transforms

from trainables.data.registry import IMAGE_SUFFIXES, DatasetInfo, ImageFolder
from trainables.data.sources import DataError, Part, unpacked

LabelledFiles = list[tuple[Path, int]]
_MUCH: Final = 1 << 30


def folder_files(listed: ImageFolder, part: Part) -> LabelledFiles:
    """The image files of one part of a folder with their labels, in the order of classes and names."""
    return [(listed.path / name, label) for name, label in (listed.test if part == "test" else listed.train)]


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
    found = sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_SUFFIXES)
    if not found:
        raise DataError(f"{folder}: no image in it")
    return found


def decode_images(info: DatasetInfo, files: Sequence[Path], *, size: int, scratch: Path | None = None) -> Tensor:
    """Image files as one tensor.

    Images of a size that networks take are kept as they are, and must all have it. Photographs are resized
    (antialiased, bilinear) so that the shorter side has `size` pixels, and the square in the middle is kept.

    Args:
        info: the dataset: channels, and whether it holds photographs.
        files: N of them.
        size: height and width wanted.
        scratch: folder for a nameless file that holds the result while it is used, if it takes much memory.

    Returns:
        (N, C, size, size) uint8, in memory with the channels last.

    Raises:
        DataError: naming the first file that is damaged or has another size or other channels.
    """
    images = _room((len(files), size, size, info.channels), scratch)
    decode = partial(_decode, info, size)
    with ThreadPoolExecutor(max_workers=torch.get_num_threads()) as pool:
        for number, image in enumerate(pool.map(decode, files)):
            images[number] = image
    return images.permute(0, 3, 1, 2)


def _room(shape: tuple[int, ...], scratch: Path | None) -> Tensor:
    """A tensor of bytes to write to."""
    if scratch is None or math.prod(shape) < _MUCH:
        return torch.empty(shape, dtype=torch.uint8)
    with tempfile.TemporaryFile(dir=scratch) as file:
        return torch.from_numpy(np.memmap(file, np.uint8, "w+", shape=shape))  # keeps the file as long as it lives


def _decode(info: DatasetInfo, size: int, path: Path) -> Tensor:
    """(H, W, C) uint8."""
    try:
        image = torchvision.io.decode_image(torchvision.io.read_file(str(path)), mode=ImageReadMode.UNCHANGED)
    except RuntimeError as error:
        raise DataError(f"{path}: not a readable image ({str(error).splitlines()[0]})") from error
    if info.expands_grey and len(image) == 1:
        image = image.expand(info.channels, -1, -1)
    if len(image) != info.channels or image.dtype != torch.uint8:
        raise DataError(
            f"{path}: {len(image)} channels of {image.dtype}, the dataset has {info.channels} of torch.uint8; "
            "convert the image"
        )
    if info.resized_crops:
        image = transforms.center_crop(transforms.resize(image, [size], antialias=True), [size, size])
    elif tuple(image.shape[1:]) != (size, size):
        raise DataError(f"{path}: {image.shape[2]} x {image.shape[1]} pixels, the dataset has {size} x {size}")
    return image.permute(1, 2, 0)


def labels_of(files: LabelledFiles) -> np.ndarray:
    """(N,) int64."""
    return np.array([label for _, label in files], dtype=np.int64)
