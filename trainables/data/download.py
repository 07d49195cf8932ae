"""Fetching a dataset's files with torchvision's own downloaders, only when somebody asks for it."""

from pathlib import Path

from trainables.data.registry import DATASETS, DatasetInfo
from trainables.data.sources import DataError


def download_files(info: DatasetInfo, root: Path) -> None:
    """Fetch a dataset's files and unpack them under the data root, where its first layout has them.

    Args:
        info: the dataset.
        root: the data root; made if it is not there.

    Raises:
        DataError: torchvision has no downloader for it, or the download failed.
    """
    if not info.download:
        able = ", ".join(other.name for other in DATASETS.values() if other.download)
        raise DataError(f"{info.name} cannot be downloaded; put its files under {root}. To be had by download: {able}")
    from torchvision import datasets

    kinds = {
        "fashion_mnist": datasets.FashionMNIST,
        "mnist": datasets.MNIST,
        "cifar10": datasets.CIFAR10,
        "cifar100": datasets.CIFAR100,
    }
    try:
        root.mkdir(parents=True, exist_ok=True)
        kinds[info.name](str(root), download=True)
    except (OSError, RuntimeError) as error:  # no network, no space, or a file with another checksum
        raise DataError(f"{info.name} could not be downloaded to {root}: {error}") from error
