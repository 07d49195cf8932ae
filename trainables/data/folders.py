"""Image file datasets: decoded by Pillow, resized by torchvision."""

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
_MAX_BYTES_IN_MEMORY: Final = 1 << 30


def folder_files(listed: ImageFolder, part: Part) -> LabelledFiles:
    """List one part's image files with labels, ordered by class and name."""
    return [(listed.path / name, label) for name, label in listed.files(part)]


def tiny_imagenet_files(info: DatasetInfo, files: Mapping[str, Path], part: Part) -> LabelledFiles:
    """List one part of Tiny ImageNet with labels. Labels follow the sorted class names.

    Raises:
        DataError: a list is damaged, or a class has no images. The message names the list or folder.
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
        raise DataError(f"{folder}: contains no images")
    return found


def decode_images(
    info: DatasetInfo, files: Sequence[Path], *, size: int, folder: Path | None = None, scratch: Path | None = None
) -> tuple[Tensor, list[int]]:
    """Decode image files into one tensor.

    Images other than photographs are kept unchanged, and all must have height and width `size`. Photographs are resized
    with antialiasing and bilinear interpolation: the shorter side then has `size` pixels. The centre square is kept.

    Args:
        info: the dataset; gives the number of channels and whether images are photographs.
        files: N image files.
        size: height and width of the result.
        folder: common folder of all files, if there is one. File names in errors are relative to this folder.
        scratch: folder for an unnamed temporary file with a large result. Without it, the result is held in memory.

    Returns:
        Images (N, C, size, size) uint8, channels last in memory, and the largest value of each 16-bit image.

    Raises:
        UnusableImagesError: files are damaged or have another size. The message lists the files.
    """
    images = _allocate((len(files), size, size, info.channels), scratch)
    results = run_in_threads(partial(decode_image, info, size), files, threads=torch.get_num_threads())
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


def _allocate(shape: tuple[int, ...], scratch: Path | None) -> Tensor:
    """Allocate a uint8 tensor, in a temporary file under `scratch` if it is large."""
    if scratch is None or math.prod(shape) < _MAX_BYTES_IN_MEMORY:
        return torch.empty(shape, dtype=torch.uint8)
    with tempfile.TemporaryFile(dir=scratch) as file:
        return torch.from_numpy(
            np.memmap(file, np.uint8, "w+", shape=shape)
        )  # keeps the file open as long as the array exists


def decode_image(info: DatasetInfo, size: int, path: Path | bytes) -> tuple[Tensor, int | None]:
    """Decode one file to (H, W, C) uint8, and return the largest value of a 16-bit image.

    Raises:
        ImageError: the file is damaged or has another size.
    """
    array, peak = read_pixels(path, "L" if info.channels == 1 else "RGB")
    if info.resized_crops:
        return resize_pixels(array, size), peak
    if array.shape[:2] != (size, size):
        raise ImageError(f"{array.shape[1]} x {array.shape[0]} pixels, but the dataset has {size} x {size}")
    return torch.from_numpy(array.copy()), peak


def resize_pixels(array: np.ndarray, size: int) -> Tensor:
    """Resize the shorter side of an image (H, W, C) uint8 to `size` pixels, and keep the centre square."""
    image = torch.from_numpy(np.ascontiguousarray(array.transpose(2, 0, 1)))
    image = transforms.center_crop(transforms.resize(image, [size], antialias=True), [size, size])
    return image.permute(1, 2, 0)


def labels_of(files: LabelledFiles) -> np.ndarray:
    """Return the file labels, (N,) int64."""
    return np.array([label for _, label in files], dtype=np.int64)
