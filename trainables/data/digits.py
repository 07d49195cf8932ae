"""The 8×8 handwritten digits shipped with scikit-learn."""

import numpy as np
import torch
from sklearn.datasets import load_digits

from trainables.data.dataset import Dataset, Split, digest_of, stratified_split
from trainables.spec.datasets import DatasetInfo


def load_digits_dataset(info: DatasetInfo, *, seed: int, split_number: int = 0) -> Dataset:
    """Load the 1,797 digits, with a split drawn by `seed`.

    Args:
        info: registry entry.
        seed: draws the split.
        split_number: number of the train/validation split.
    """
    source = load_digits()
    # Pixels count the ink in 4×4 cells, 0 to 16. Multiplying by 15 is exact in uint8 and keeps all 17 grey levels.
    images = (source.images * 15).astype(np.uint8)[:, None]
    labels = source.target.astype(np.int64)
    train, validation, test = stratified_split(labels, info.split_sizes, seed=seed, split_number=split_number)

    def split(rows: np.ndarray) -> Split:
        return Split(torch.from_numpy(images), torch.from_numpy(labels[rows]), torch.from_numpy(rows))

    return Dataset(
        info,
        train=split(train),
        validation=split(validation),
        read_test=lambda: split(test),
        seed=seed,
        split_number=split_number,
        digest=digest_of(info.name, images, labels, train, validation, test),
    )
