"""Datasets by name."""

# Importing this package imports no torch, so that a plan is checked without.

from pathlib import Path
from typing import TYPE_CHECKING

from trainables.data.registry import dataset_info
from trainables.spec.datasets import check_files

if TYPE_CHECKING:
    from trainables.data.dataset import Dataset


def load_dataset(
    name: str,
    root: Path | str | None,
    *,
    seed: int = 0,
    download: bool = False,
    tokeniser: Path | None = None,
) -> "Dataset":
    """A dataset, split into train, validation and test.

    Args:
        name: canonical name.
        root: folder that holds the dataset's files, which is only read unless something is downloaded to it; unused by
            a dataset that ships with a library and by an image folder.
        seed: draws the split.
        download: fetch missing files to the root.
        tokeniser: of text, a model's folder with the tokeniser to use; one is trained on the train split if not given.

    Returns:
        A `TextDataset` for a task of GLUE, which has tokens where others have images.

    Raises:
        ValueError: for an unknown name, or naming the files that are expected under the root and missing, or one that
            is damaged.
    """
    info = dataset_info(name)
    folder = Path(root) if root is not None else None
    if download and folder is not None and info.missing_files(folder):
        from trainables.data.download import download_files  # imports torchvision

        download_files(info, folder)
    check_files(info, folder)
    if info.task is not None:
        from trainables.data.text.dataset import load_text_dataset  # imports torch and tokenizers

        return load_text_dataset(info, folder, seed=seed, tokeniser_folder=tokeniser)
    if info.name == "digits":
        from trainables.data.digits import load_digits_dataset  # imports torch and scikit-learn

        return load_digits_dataset(info, seed=seed)
    from trainables.data.from_files import load_from_files  # imports torch

    return load_from_files(info, folder, seed=seed)
