"""Datasets by name."""

# Importing this package does not import torch, which keeps checking a plan fast.

from pathlib import Path
from typing import TYPE_CHECKING

from trainables.data.registry import dataset_info
from trainables.spec.datasets import check_files
from trainables.spec.own_data import is_own_data

if TYPE_CHECKING:
    from trainables.data.dataset import Dataset


def load_dataset(
    name: str,
    root: Path | str | None,
    *,
    seed: int = 0,
    split_number: int = 0,
    download: bool = False,
    tokeniser: Path | None = None,
) -> "Dataset":
    """Load a dataset, split into train, validation and test.

    Args:
        name: canonical name.
        root: folder with the dataset's files, read-only unless `download` adds missing files. Unused for image folders,
            user datasets, and datasets shipped with a library.
        seed: draws the split.
        split_number: draws train and validation again, unless it is 0; the test split stays.
        download: fetch missing files into `root`, or a dataset of the Hugging Face hub into the cache of `datasets`.
        tokeniser: for text, a model folder with the tokeniser to use. If not given, a tokeniser is trained on the train
            split.

    Returns:
        The dataset. For a GLUE task, a `TextDataset` with tokens instead of images.

    Raises:
        ValueError: the name is unknown, files are missing under `root`, or a file is damaged. The message lists the
            files.
    """
    if download and is_own_data(name):
        from trainables.data.own.opened import fetch_own

        fetch_own(name, dry_run=False)
    info = dataset_info(name)
    folder = Path(root) if root is not None else None
    if download and folder is not None and info.missing_files(folder):
        from trainables.data.download import download_files  # imports torchvision

        download_files(info, folder)
    check_files(info, folder)
    if info.task is not None:
        from trainables.data.text.dataset import load_text_dataset  # imports torch and tokenizers

        return load_text_dataset(info, folder, seed=seed, split_number=split_number, tokeniser_folder=tokeniser)
    if is_own_data(info.name):
        from trainables.data.own.opened import load_own  # imports torch

        return load_own(info, seed=seed, split_number=split_number)
    if info.name == "digits":
        from trainables.data.digits import load_digits_dataset  # imports torch and scikit-learn

        return load_digits_dataset(info, seed=seed, split_number=split_number)
    from trainables.data.from_files import load_from_files  # imports torch

    return load_from_files(info, folder, seed=seed, split_number=split_number)
