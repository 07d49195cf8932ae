"""Datasets read from files: decoded into a cache, and split by a seed."""

import functools
from pathlib import Path
from typing import Final

import numpy as np
import torch

from trainables.data.class_names import with_class_names
from trainables.data.dataset import Dataset, Split, digest_of, stratified_split
from trainables.data.decoded import Decoded, decode_part
from trainables.data.image_folder import list_image_folder
from trainables.data.sources import DataError
from trainables.spec.datasets import FOLDER_PREFIX, DatasetInfo
from trainables.storage.remote_folder import node_cache

_NAME_IN_DIGEST: Final = "image_folder"  # the digest does not depend on the location of the folder


def load_from_files(info: DatasetInfo, root: Path | None, *, seed: int, split_number: int = 0) -> Dataset:
    """Load a dataset from files. The validation split is drawn from the training part.

    An image folder may have a separate validation part, which is then used instead. An image folder without a test part
    also has a drawn test split.

    Args:
        info: the dataset.
        root: data root, read-only.
        seed: draws the split.
        split_number: number of the split into train and validation.

    Raises:
        DataError: a file is damaged or does not fit the dataset. The message names the file.
    """
    cache = node_cache() / "datasets"
    info = with_class_names(info, root)
    part = decode_part(info, root, "train", cache)
    listed = list_image_folder(Path(info.source)) if info.name.startswith(FOLDER_PREFIX) else None
    if listed is not None and listed.validation:
        if split_number:
            raise DataError(
                f"{info.name} has a validation part, so its split cannot be drawn again: give split_number 0"
            )
        return _three_parts(info, part, cache, seed=seed)
    own_test = listed is None or bool(listed.test)
    sizes = (*info.split_sizes[:2], 0) if own_test else info.split_sizes
    _check_count(info, part, sum(sizes))
    train, validation, test = stratified_split(
        part.labels, sizes, seed=seed, split_number=split_number, names=info.class_names
    )

    @functools.cache
    def read_test() -> Split:
        if not own_test:
            return _split(info, part, test)
        return _whole(info, decode_part(info, root, "test", cache))

    name = _NAME_IN_DIGEST if info.name.startswith(FOLDER_PREFIX) else info.name
    return Dataset(
        info,
        train=_split(info, part, train),
        validation=_split(info, part, validation),
        read_test=read_test,
        seed=seed,
        split_number=split_number,
        digest=digest_of(f"{name}|{part.digest}", train, validation, test),
        decoded=part,
    )


def _three_parts(info: DatasetInfo, train: Decoded, cache: Path, *, seed: int) -> Dataset:
    """Load an image folder with a validation part. Nothing is drawn; the seed is only stored."""
    validation = decode_part(info, None, "validation", cache)
    for part, size in zip((train, validation), info.split_sizes, strict=False):
        _check_count(info, part, size)

    @functools.cache
    def read_test() -> Split:
        return _whole(info, decode_part(info, None, "test", cache))

    return Dataset(
        info,
        train=_whole(info, train),
        validation=_whole(info, validation),
        read_test=read_test,
        seed=seed,
        digest=digest_of(f"{_NAME_IN_DIGEST}|{train.digest}|{validation.digest}"),
        decoded=train,
    )


def _check_count(info: DatasetInfo, part: Decoded, expected: int) -> None:
    if len(part.labels) != expected:
        raise DataError(
            f"{info.name}: {len(part.labels)} images, but {expected} when the folder was scanned: start again"
        )


def _whole(info: DatasetInfo, part: Decoded) -> Split:
    return _split(info, part, np.arange(len(part.labels)))


def _split(info: DatasetInfo, part: Decoded, rows: np.ndarray) -> Split:
    labels = torch.from_numpy(part.labels[rows])
    return Split(part.images, labels, torch.from_numpy(rows.astype(np.int64)), image_size=info.image_size)
