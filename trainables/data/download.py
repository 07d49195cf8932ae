"""Fetching a dataset's files, with torchvision or from the Hugging Face hub, only when somebody asks for it."""

from pathlib import Path

from trainables.data.sources import DataError
from trainables.spec.datasets import DATASETS, DatasetInfo
from trainables.spec.glue import HUB_DATASET


def download_files(info: DatasetInfo, root: Path) -> None:
    """Fetch a dataset's files and unpack them under the data root, as one of its layouts has them.

    Args:
        info: the dataset.
        root: the data root; made if it is not there.

    Raises:
        DataError: there is no downloader for it, or the download failed.
    """
    if not info.download:
        able = ", ".join(other.name for other in DATASETS.values() if other.download)
        raise DataError(f"{info.name} cannot be downloaded; put its files under {root}. To be had by download: {able}")
    if info.task is not None:
        _download_from_hub(info, root)
        return
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


def _download_from_hub(info: DatasetInfo, root: Path) -> None:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise DataError(f"{info.name} is downloaded by the extra 'text': pip install 'pesfkd[text]'") from error
    try:
        for name in info.layouts[-1]:
            hf_hub_download(HUB_DATASET, name, repo_type="dataset", local_dir=root)
    except (OSError, RuntimeError, ValueError) as error:  # no network, no space, or the hub refuses
        raise DataError(f"{info.name} could not be downloaded to {root}: {error}") from error
