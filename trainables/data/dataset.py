"""Datasets in memory with three splits; the test split is built only on first access."""

import hashlib
import math
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from trainables.data.splits import class_shares
from trainables.data.text.metrics import constant_score
from trainables.data.views import (
    AnyViewedImages,
    AnyViewTable,
    OwnViews,
    OwnViewTable,
    ResizedCrops,
    ResizedCropTable,
    ViewedImages,
    own_views_of,
)
from trainables.spec.datasets import DatasetInfo
from trainables.spec.trial import seed_of_split

if TYPE_CHECKING:
    from trainables.data.decoded import Decoded


class Split:
    """Subset of a dataset's samples.

    Args:
        source: (M, C, H, W) uint8, images including the samples.
        labels: (N,) int64.
        indices: (N,) int64, row of each sample in `source`.
        image_size: height and width of model inputs; defaults to the source size. Larger source images are cropped to
            the centre.
    """

    def __init__(self, source: Tensor, labels: Tensor, indices: Tensor, *, image_size: int | None = None) -> None:
        self.source = source
        self.labels = labels
        self.indices = indices
        self.image_size = source.shape[-1] if image_size is None else image_size

    def __len__(self) -> int:
        return len(self.labels)

    @cached_property
    def images(self) -> Tensor:
        """Images (N, C, H, W) uint8 in sample order, copied from the source on first use."""
        edge = (self.source.shape[-1] - self.image_size) // 2
        inner = slice(edge, edge + self.image_size)
        return self.source[..., inner, inner].index_select(0, self.indices)


class Dataset:
    """Train, validation and test split of one dataset.

    Args:
        info: registry entry.
        train: training data for students, adapters and teachers.
        validation: data for the search and for all per-epoch metrics.
        read_test: builds the test split. Called on first access to `test`, never earlier.
        seed: split seed.
        split_number: number of the train/validation split; see `stratified_split`.
        digest: sha256 of source content and split, hexadecimal.
        decoded: decoded part of the files with the train split. None for datasets small enough for every process's
            memory.
    """

    def __init__(
        self,
        info: DatasetInfo,
        *,
        train: Split,
        validation: Split,
        read_test: Callable[[], Split],
        seed: int,
        digest: str,
        split_number: int = 0,
        decoded: "Decoded | None" = None,
    ) -> None:
        self.info = info
        self.seed = seed
        self.split_number = split_number
        self.name = info.name
        self.num_classes = info.num_classes
        self.train = train
        self.validation = validation
        self.digest = digest
        self._decoded = decoded
        self._read_test = read_test
        self._test: Split | None = None
        self.source_counts: dict[str, int] = {}  # empty for images, which are split individually

    @property
    def test(self) -> Split:
        """Test split. Only the final confirmation reads it; nothing reads it during a search."""
        if self._test is None:
            self._test = self._read_test()
        return self._test

    def constant_score(self, split: Split) -> float:
        """Compute the best score for predicting one class for the whole split, measured by the dataset's objective."""
        task = self.info.task
        return constant_score(split.labels, "accuracy" if task is None else task.objective, self.num_classes)

    @cached_property
    def mean(self) -> tuple[float, ...]:
        """Mean per channel over the train split, for pixels in [0, 1]."""
        count, sums, _ = self._train_moments
        return tuple(total / (255 * count) for total in sums)

    @cached_property
    def std(self) -> tuple[float, ...]:
        """Standard deviation per channel over the train split, for pixels in [0, 1]."""
        count, sums, squares = self._train_moments
        variances = [count * square - total**2 for total, square in zip(sums, squares, strict=True)]
        return tuple(math.sqrt(variance) / (255 * count) for variance in variances)

    @cached_property
    def _train_moments(self) -> tuple[int, list[int], list[int]]:
        """Train pixels per channel: number, exact sum, and exact sum of squares."""
        if self._decoded is None:
            pixels = self.train.images.transpose(0, 1).flatten(1).long()
            return pixels.shape[1], pixels.sum(1).tolist(), pixels.square().sum(1).tolist()
        sums, squares = (each[self.train.indices].sum(0) for each in (self._decoded.sums, self._decoded.squares))
        return len(self.train) * self.train.source[0, 0].numel(), sums.tolist(), squares.tolist()

    def viewed(self, table: AnyViewTable, device: torch.device) -> AnyViewedImages:
        """Return the train images in the views of a table, on a device.

        On the CPU, datasets read from files are memory-mapped: all processes on a machine share one copy.
        """
        if isinstance(table, OwnViewTable):
            edge = (self.train.source.shape[-1] - self.train.image_size) // 2
            inner = slice(edge, edge + self.train.image_size)
            images = self.train.source[..., inner, inner]
            return OwnViews(images, own_views_of(table.name), rows=self.train.indices, device=device)
        if isinstance(table, ResizedCropTable):
            return ResizedCrops(self.train.source, table, rows=self.train.indices, device=device)
        if self._decoded is None or device.type != "cpu":
            return ViewedImages(self.train.images.to(device), table)
        return ViewedImages(self.train.source, table, pixels=self._decoded.pixels(table), rows=self.train.indices)


def stratified_split(
    labels: np.ndarray,
    sizes: tuple[int, int, int],
    *,
    seed: int,
    split_number: int = 0,
    names: Sequence[str] = (),
) -> tuple[np.ndarray, ...]:
    """Draw three disjoint splits. Each class has a proportional share of every split, to within one sample.

    Every class keeps a training sample. A class with two or more samples also keeps a validation sample; see
    `trainables.data.splits`.

    Args:
        labels: (N,) integers.
        sizes: samples in (train, validation, test), with sum N.
        seed: draws the samples of each split.
        split_number: draws train and validation again from their samples, unless it is 0. The test split stays: a
            study's training and validation samples are never tested.
        names: class names by label, for the error message.

    Returns:
        Three sorted arrays of indices.

    Raises:
        ValueError: the splits have too few samples for all classes. The message names the smallest classes.
    """
    assert sum(sizes) == len(labels), f"splits of sizes {sizes} need {sum(sizes)} samples, but there are {len(labels)}"
    random, again = np.random.default_rng(seed), np.random.default_rng(seed_of_split(seed, split_number))
    classes = np.unique(labels)
    pools = [random.permutation(np.flatnonzero(labels == label)) for label in classes]
    known = [names[label] if len(names) > label else f"class {label}" for label in classes.tolist()]
    shares = class_shares([len(pool) for pool in pools], sizes, names=known)
    drawn: list[list[np.ndarray]] = [[], [], []]
    for pool, (_, validation, test) in zip(pools, shares, strict=True):
        if split_number:
            pool[test:] = again.permutation(pool[test:])
        for split, samples in zip(drawn, np.split(pool, [test, test + validation])[::-1], strict=True):
            split.append(samples)
    return tuple(np.sort(np.concatenate(split)) for split in drawn)


def digest_of(name: str, *arrays: np.ndarray) -> str:
    """Compute the sha256 of a name and arrays with dtypes and shapes, hexadecimal."""
    content = hashlib.sha256(name.encode())
    for array in arrays:
        little_endian = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        content.update(f"|{little_endian.dtype.str}{array.shape}|".encode())
        content.update(little_endian.tobytes())
    return content.hexdigest()
