"""Datasets by name.

Importing this package imports no torch: `trainables.data.registry` lies in it, and a plan is checked without.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from trainables.data.registry import DATASETS, check_dataset_name

if TYPE_CHECKING:
    from trainables.data.dataset import Dataset


def load_dataset(name: str, root: Path | str | None, *, seed: int = 0, download: bool = False) -> "Dataset":
    """A dataset in memory, split into train, validation and test.

    Args:
        name: canonical name.
        root: folder that holds the dataset's files; unused by a dataset that ships with a library.
        seed: draws the split.
        download: fetch missing files; no dataset here has a source to fetch from yet.

    Raises:
        ValueError: for an unknown name, or naming the files that are expected under the root and missing.
    """
    info = DATASETS[check_dataset_name(name)]
    folder = Path(root) if root is not None else None
    missing = info.missing_files(folder)
    if missing:
        where = folder if folder is not None else "an unset data root"
        raise ValueError(
            f"dataset {name!r} is not complete under {where}: it consists of {', '.join(info.files)}, "
            f"and there is no {', '.join(str(path) for path in missing)}. Put the files there, or pass the "
            f"folder that holds them as the data root. Source: {info.source}."
            + (" There is nowhere to download it from." if download else "")
        )
    from trainables.data.digits import load_digits_dataset  # imports torch and scikit-learn

    return load_digits_dataset(info, seed=seed)
