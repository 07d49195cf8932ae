"""Dataset information available without reading samples. Imports no torch, so checking a plan is fast."""

from collections import Counter
from pathlib import Path
from typing import Final

from trainables.data.image_folder import ImageFolder, list_image_folder
from trainables.data.splits import class_shares
from trainables.spec.datasets import DATASETS, FOLDER_PREFIX, RESIZED_CROPS, DatasetInfo, check_dataset_name
from trainables.spec.own_data import is_own_data

_VALIDATION_SHARE: Final = 0.1
# Photographs are resized to ImageNet models' input size.
_PHOTOGRAPH_SIZE: Final = 224


def dataset_info(name: str) -> DatasetInfo:
    """Return the information on a dataset. An image folder or user dataset is read first.

    Raises:
        ValueError: the name is unknown, or the samples cannot be used. The message gives the reason.
    """
    check_dataset_name(name)
    if name in DATASETS:
        return DATASETS[name]
    if is_own_data(name):
        from trainables.data.own.opened import own_dataset_info  # imports NumPy and Pillow

        return own_dataset_info(name)
    return scan_image_folder(Path(name.removeprefix(FOLDER_PREFIX)))


def scan_image_folder(path: Path) -> DatasetInfo:
    """Scan an image folder for the information needed by a plan: classes, split sizes and image size.

    If most images are small squares of one size, all images must have that size, and they are used unchanged. Otherwise
    the images are photographs of any size. Images are grey if all of them are grey.

    Without a validation part, a tenth of the training images is used for validation. If there is no test part either,
    another tenth is used as test split. Each drawn split has at least as many images as there are classes.

    Raises:
        ValueError: see `list_image_folder`; or no image is readable, or the classes have too few images.
    """
    from trainables.data.image_scan import scan_of  # imports Pillow and NumPy

    listed = list_image_folder(path)
    scan = scan_of(listed)
    total = len(listed.train)
    if listed.validation:
        sizes = (total, len(listed.validation), len(listed.test))
    else:
        share = max(len(listed.classes), round(_VALIDATION_SHARE * total))
        drawn = 0 if listed.test else share
        sizes = (total - share - drawn, share, len(listed.test) or share)
        try:
            class_shares(class_sizes(listed), (sizes[0], share, drawn), names=listed.classes)
        except ValueError as error:
            raise ValueError(f"{path / dict(listed.folders).get('train', '')}: {error}") from None
    edge = scan.edge
    return DatasetInfo(
        name=f"{FOLDER_PREFIX}{path}",
        num_classes=len(listed.classes),
        channels=1 if scan.mode == "L" else 3,
        image_size=edge or _PHOTOGRAPH_SIZE,
        split_sizes=sizes,
        padding=max(1, edge // 8) if edge else 0,
        mirrored=True,
        layouts=(),
        source=str(path),
        resized_crops=0 if edge else RESIZED_CROPS,
        class_names=listed.classes,
    )


def class_sizes(listed: ImageFolder) -> list[int]:
    """Count the training images per class, by label."""
    counts = Counter(label for _, label in listed.train)
    return [counts[label] for label in range(len(listed.classes))]
