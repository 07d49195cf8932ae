"""Check of images before a study: every file of a folder, or sample of a user dataset, can be decoded."""

from functools import partial
from pathlib import Path

from trainables.data.image_folder import Part, list_image_folder
from trainables.data.image_scan import check_images
from trainables.data.registry import dataset_info
from trainables.spec.datasets import FOLDER_PREFIX, DatasetInfo
from trainables.spec.own_data import is_own_data


def check_image_folder(dataset: str, *, keep: bool) -> None:
    """Check that every file of an image folder can be decoded. Files with an earlier successful check are skipped.

    Args:
        dataset: canonical name. Datasets other than image folders and user datasets are not checked.
        keep: cache the decoded training and validation images for trials on this machine.

    Raises:
        ValueError: some files cannot be used. The message lists the files.
    """
    if is_own_data(dataset):
        from trainables.data.own.opened import check_own

        check_own(dataset, keep=keep)
        return
    if not dataset.startswith(FOLDER_PREFIX):
        return
    decode = partial(_decode, dataset_info(dataset)) if keep else None
    check_images(list_image_folder(Path(dataset.removeprefix(FOLDER_PREFIX))), decode)


def _decode(info: DatasetInfo, part: Part) -> None:
    from trainables.data.decoded import decode_part  # imports torch
    from trainables.storage.remote_folder import node_cache  # imports pyarrow

    decode_part(info, None, part, node_cache() / "datasets")
