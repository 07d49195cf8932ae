"""A dataset in memory: three splits, of which the test split is built only when somebody asks for it."""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor

from trainables.data.registry import DatasetInfo


@dataclass(frozen=True)
class Split:
    """Some of a dataset's samples.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) int64.
        indices: (N,) int64, each sample's number in the source.
    """

    images: Tensor
    labels: Tensor
    indices: Tensor

    def __len__(self) -> int:
        return len(self.labels)


class Dataset:
    """Train, validation and test split of one dataset.

    Args:
        info: what the registry knows of it.
        train: what students, adapters and teachers learn from.
        validation: what a search and every per-epoch measure looks at.
        read_test: builds the test split; called at the first access to `test` and not before.
        seed: drew the split.
        digest: sha256 of the source's content and of the split, hexadecimal.
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
    ) -> None:
        self.info = info
        self.seed = seed
        self.name = info.name
        self.num_classes = info.num_classes
        self.train = train
        self.validation = validation
        self.digest = digest
        self._read_test = read_test
        self._test: Split | None = None

    @property
    def test(self) -> Split:
        """The test split. Only the final confirmation reads it; nothing does while a search runs."""
        if self._test is None:
            self._test = self._read_test()
        return self._test

    @cached_property
    def mean(self) -> tuple[float, ...]:
        """Mean of each channel over the train split, of pixels in [0, 1]."""
        return tuple((self._train_channels().mean(dim=1) / 255).tolist())

    @cached_property
    def std(self) -> tuple[float, ...]:
        """Standard deviation of each channel over the train split, of pixels in [0, 1]."""
        return tuple((self._train_channels().std(dim=1, correction=0) / 255).tolist())

    def _train_channels(self) -> Tensor:
        return self.train.images.transpose(0, 1).flatten(1).double()


def stratified_split(labels: np.ndarray, sizes: tuple[int, int, int], *, seed: int) -> tuple[np.ndarray, ...]:
    """Indices of three disjoint splits in which each class has its share, to within a sample.

    Args:
        labels: (N,) integers.
        sizes: samples in (train, validation, test); they sum to N.
        seed: draws which samples go where.

    Returns:
        Three sorted arrays of indices.
    """
    assert sum(sizes) == len(labels), f"splits of {sizes} need {sum(sizes)} samples, there are {len(labels)}"
    random = np.random.default_rng(seed)
    classes = np.unique(labels)
    pools = [random.permutation(np.flatnonzero(labels == label)) for label in classes]
    splits = []
    for size in reversed(sizes):
        counts = _shares(np.array([len(pool) for pool in pools]), size)
        splits.append(np.sort(np.concatenate([pool[:n] for pool, n in zip(pools, counts, strict=True)])))
        pools = [pool[n:] for pool, n in zip(pools, counts, strict=True)]
    return tuple(reversed(splits))


def _shares(available: np.ndarray, size: int) -> np.ndarray:
    """`size` samples shared out over classes in proportion to `available`, by the largest remainders."""
    exact = available * (size / available.sum())
    counts = np.floor(exact + 1e-9).astype(np.int64)
    largest_first = np.argsort(-(exact - counts), kind="stable")
    counts[largest_first[: size - counts.sum()]] += 1
    return counts


def split_of(images: np.ndarray, labels: np.ndarray, indices: np.ndarray) -> Split:
    """The samples at `indices` as tensors.

    Args:
        images: (N, C, H, W) uint8.
        labels: (N,) integers.
        indices: (M,) integers.
    """
    return Split(
        images=torch.from_numpy(np.ascontiguousarray(images[indices])),
        labels=torch.from_numpy(labels[indices].astype(np.int64)),
        indices=torch.from_numpy(indices.astype(np.int64)),
    )


def digest_of(name: str, *arrays: np.ndarray) -> str:
    """sha256 of arrays with their types and shapes, hexadecimal."""
    content = hashlib.sha256(name.encode())
    for array in arrays:
        little_endian = np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False)
        content.update(f"|{little_endian.dtype.str}{array.shape}|".encode())
        content.update(little_endian.tobytes())
    return content.hexdigest()
