"""Datasets read from files: decoded into a cache, and split by a seed."""

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Final

import numpy as np
import torch

from trainables.data.class_names import with_class_names
from trainables.data.dataset import Dataset, Split, digest_of, stratified_split
from trainables.data.decoded import Decoded, decode_part
from trainables.data.image_folder import Part, list_image_folder
from trainables.data.sources import DataError
from trainables.spec.datasets import FOLDER_PREFIX, DatasetInfo
from trainables.storage.remote_folder import node_cache

_NAME_IN_DIGEST: Final = "image_folder"  # the digest does not depend on the folder's location


def load_from_files(info: DatasetInfo, root: Path | None, *, seed: int, split_number: int = 0) -> Dataset:
    """Load a dataset from files. The validation split is drawn from the training part.

    An image folder may have a separate validation part, which is then used instead. An image folder without a test part
    also has a drawn test split.

    Args:
        info: the dataset.
        root: data root, read-only.
        seed: draws the split.
        split_number: number of the train/validation split.

    Raises:
        DataError: a file is damaged or does not fit the dataset. The message names the file.
    """
    cache = node_cache() / "datasets"
    info = with_class_names(info, root)
    listed = list_image_folder(Path(info.source)) if info.name.startswith(FOLDER_PREFIX) else None
    return load_parts(
        info,
        functools.partial(decode_part, info, root, cache=cache),
        has_validation=listed is not None and bool(listed.validation),
        has_test=listed is None or bool(listed.test),
        name_in_digest=info.name if listed is None else _NAME_IN_DIGEST,
        seed=seed,
        split_number=split_number,
    )


def load_parts(
    info: DatasetInfo,
    decode: Callable[[Part], Decoded],
    *,
    has_validation: bool,
    has_test: bool,
    name_in_digest: str,
    seed: int,
    split_number: int,
) -> Dataset:
    """Assemble a dataset from decoded parts; missing parts are drawn from the train part.

    Args:
        info: the dataset.
        decode: decodes one part. The test part is decoded on first access.
        has_validation: whether there is a validation part.
        has_test: whether there is a test part.
        name_in_digest: name in the digest, the same wherever the files are.
        seed: draws the split.
        split_number: number of the train/validation split.

    Raises:
        DataError: a part is damaged or does not fit the dataset.
    """
    part = decode("train")
    if has_validation:
        if split_number:
            raise DataError(
                f"{info.name} has a validation part, so its split cannot be drawn again: give split_number 0"
            )
        return _three_parts(info, part, decode, name_in_digest, seed=seed)
    sizes = (*info.split_sizes[:2], 0) if has_test else info.split_sizes
    _check_count(info, part, sum(sizes))
    train, validation, test = stratified_split(
        part.labels, sizes, seed=seed, split_number=split_number, names=info.class_names
    )

    @functools.cache
    def read_test() -> Split:
        return _whole(info, decode("test")) if has_test else _split(info, part, test)

    return Dataset(
        info,
        train=_split(info, part, train),
        validation=_split(info, part, validation),
        read_test=read_test,
        seed=seed,
        split_number=split_number,
        digest=digest_of(f"{name_in_digest}|{part.digest}", train, validation, test),
        decoded=part,
    )


def _three_parts(
    info: DatasetInfo, train: Decoded, decode: Callable[[Part], Decoded], name_in_digest: str, *, seed: int
) -> Dataset:
    """Load a dataset with a validation part. Nothing is drawn; the seed is only stored."""
    validation = decode("validation")
    for part, size in zip((train, validation), info.split_sizes, strict=False):
        _check_count(info, part, size)

    @functools.cache
    def read_test() -> Split:
        return _whole(info, decode("test"))

    return Dataset(
        info,
        train=_whole(info, train),
        validation=_whole(info, validation),
        read_test=read_test,
        seed=seed,
        digest=digest_of(f"{name_in_digest}|{train.digest}|{validation.digest}"),
        decoded=train,
    )


def _check_count(info: DatasetInfo, part: Decoded, expected: int) -> None:
    if len(part.labels) != expected:
        raise DataError(
            f"{info.name}: {len(part.labels)} images, but {expected} when the dataset was scanned: start again"
        )


def _whole(info: DatasetInfo, part: Decoded) -> Split:
    return _split(info, part, np.arange(len(part.labels)))


def _split(info: DatasetInfo, part: Decoded, rows: np.ndarray) -> Split:
    labels = torch.from_numpy(part.labels[rows])
    return Split(part.images, labels, torch.from_numpy(rows.astype(np.int64)), image_size=info.image_size)
