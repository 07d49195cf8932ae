"""Download of dataset files with torchvision or from the Hugging Face hub, only on request."""

from pathlib import Path

from trainables.data.sources import DataError
from trainables.spec.datasets import DATASETS, DatasetInfo
from trainables.spec.glue import HUB_DATASET


def download_files(info: DatasetInfo, root: Path) -> None:
    """Download a dataset and unpack the files under the data root, in one of the dataset's layouts.

    Args:
        info: the dataset.
        root: data root; created if missing.

    Raises:
        DataError: the dataset has no downloader, or the download failed.
    """
    if not info.download:
        able = ", ".join(other.name for other in DATASETS.values() if other.download)
        raise DataError(
            f"{info.name} cannot be downloaded; put its files under {root}. Datasets that can be downloaded: {able}"
        )
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
    except (OSError, RuntimeError) as error:  # no network, no disk space, or a checksum mismatch
        raise DataError(f"{info.name} could not be downloaded to {root}: {error}") from error


def _download_from_hub(info: DatasetInfo, root: Path) -> None:
    try:
        from huggingface_hub import hf_hub_download
    except ImportError as error:
        raise DataError(f"downloading {info.name} needs the extra 'text': pip install 'pesfkd[text]'") from error
    try:
        for name in info.layouts[-1]:
            hf_hub_download(HUB_DATASET, name, repo_type="dataset", local_dir=root)
    except (OSError, RuntimeError, ValueError) as error:  # no network, no disk space, or an error of the hub
        raise DataError(f"{info.name} could not be downloaded to {root}: {error}") from error
