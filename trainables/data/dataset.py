"""A dataset in memory: three splits, of which the test split is built only when somebody asks for it."""

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
from trainables.data.views import AnyViewedImages, AnyViewTable, ResizedCrops, ResizedCropTable, ViewedImages
from trainables.spec.datasets import DatasetInfo

if TYPE_CHECKING:
    from trainables.data.decoded import Decoded


class Split:
    """Some of a dataset's samples.

    Args:
        source: (M, C, H, W) uint8, the images among which the samples are.
        labels: (N,) int64.
        indices: (N,) int64, each sample's row in `source`.
        image_size: height and width of the images as networks take them; not given, those of the source. The middle
            of a larger source is taken.
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
        """(N, C, H, W) uint8, in the samples' order; copied from the source at the first use."""
        edge = (self.source.shape[-1] - self.image_size) // 2
        inner = slice(edge, edge + self.image_size)
        return self.source[..., inner, inner].index_select(0, self.indices)


class Dataset:
    """Train, validation and test split of one dataset.

    Args:
        info: what the registry knows of it.
        train: what students, adapters and teachers learn from.
        validation: what a search and every per-epoch measure looks at.
        read_test: builds the test split; called at the first access to `test` and not before.
        seed: drew the split.
        digest: sha256 of the source's content and of the split, hexadecimal.
        decoded: the part of the dataset's files that the train split is taken from; None for a dataset that is small
            enough to lie in the memory of every process.
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
        decoded: "Decoded | None" = None,
    ) -> None:
        self.info = info
        self.seed = seed
        self.name = info.name
        self.num_classes = info.num_classes
        self.train = train
        self.validation = validation
        self.digest = digest
        self._decoded = decoded
        self._read_test = read_test
        self._test: Split | None = None
        self.source_counts: dict[str, int] = {}  # of images that are split one by one

    @property
    def test(self) -> Split:
        """The test split. Only the final confirmation reads it; nothing does while a search runs."""
        if self._test is None:
            self._test = self._read_test()
        return self._test

    def constant_score(self, split: Split) -> float:
        """The best score of a network that gives every sample of a split the same class, by the dataset's objective."""
        task = self.info.task
        return constant_score(split.labels, "accuracy" if task is None else task.objective, self.num_classes)

    @cached_property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over the train split, of pixels in [0, 1]."""
        count, sums, _ = self._train_moments
        return tuple(total / (255 * count) for total in sums)

    @cached_property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel over the train split, of pixels in [0, 1]."""
        count, sums, squares = self._train_moments
        variances = [count * square - total**2 for total, square in zip(sums, squares, strict=True)]
        return tuple(math.sqrt(variance) / (255 * count) for variance in variances)

    @cached_property
    def _train_moments(self) -> tuple[int, list[int], list[int]]:
        """Pixels of the train split, and by channel their sum and that of their squares, exactly."""
        if self._decoded is None:
            pixels = self.train.images.transpose(0, 1).flatten(1).long()
            return pixels.shape[1], pixels.sum(1).tolist(), pixels.square().sum(1).tolist()
        sums, squares = (each[self.train.indices].sum(0) for each in (self._decoded.sums, self._decoded.squares))
        return len(self.train) * self.train.source[0, 0].numel(), sums.tolist(), squares.tolist()

    def viewed(self, table: AnyViewTable, device: torch.device) -> AnyViewedImages:
        """The train split's images in the views of a table, on a device.

        On the CPU a dataset's files are mapped: all processes of a machine share one copy.
        """
        if isinstance(table, ResizedCropTable):
            return ResizedCrops(self.train.source, table, rows=self.train.indices, device=device)
        if self._decoded is None or device.type != "cpu":
            return ViewedImages(self.train.images.to(device), table)
        return ViewedImages(self.train.source, table, pixels=self._decoded.pixels(table), rows=self.train.indices)


def stratified_split(
    labels: np.ndarray, sizes: tuple[int, int, int], *, seed: int, names: Sequence[str] = ()
) -> tuple[np.ndarray, ...]:
    """Indices of three disjoint splits in which each class has its share, to within a sample.

    Every class keeps a training sample and, if it has two or more, a validation sample; see `trainables.data.splits`.

    Args:
        labels: (N,) integers.
        sizes: samples in (train, validation, test); they sum to N.
        seed: draws which samples go where.
        names: names of the classes, by label, for the error.

    Returns:
        Three sorted arrays of indices.

    Raises:
        ValueError: naming the smallest classes, if the splits have too few samples for all classes.
    """
    assert sum(sizes) == len(labels), f"splits of {sizes} need {sum(sizes)} samples, there are {len(labels)}"
    random = np.random.default_rng(seed)
    classes = np.unique(labels)
    pools = [random.permutation(np.flatnonzero(labels == label)) for label in classes]
    known = [names[label] if len(names) > label else f"class {label}" for label in classes.tolist()]
    shares = class_shares([len(pool) for pool in pools], sizes, names=known)
    drawn: list[list[np.ndarray]] = [[], [], []]
    for pool, (_, validation, test) in zip(pools, shares, strict=True):
        for split, samples in zip(drawn, np.split(pool, [test, test + validation])[::-1], strict=True):
            split.append(samples)
    return tuple(np.sort(np.concatenate(split)) for split in drawn)


def digest_of(name: str, *arrays: np.ndarray) -> str:
    """sha256 of arrays with their types and shapes, hexadecimal."""
    content = hashlib.sha256(name.encode())
    for array in arrays:
        little_endian = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        content.update(f"|{little_endian.dtype.str}{array.shape}|".encode())
        content.update(little_endian.tobytes())
    return content.hexdigest()
