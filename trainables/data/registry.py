"""What is known of a dataset before it is read; imports no torch, so that a plan is checked in no time."""

from collections import Counter
from pathlib import Path
from typing import Final

from trainables.data.image_folder import ImageFolder, list_image_folder
from trainables.data.splits import class_shares
from trainables.spec.datasets import DATASETS, FOLDER_PREFIX, RESIZED_CROPS, DatasetInfo, check_dataset_name

_VALIDATION_SHARE: Final = 0.1
# Photographs are brought to the size that networks of ImageNet's kind take.
_PHOTOGRAPH_SIZE: Final = 224


def dataset_info(name: str) -> DatasetInfo:
    """What is known of a dataset; an image folder is looked through for it.

    Raises:
        ValueError: for an unknown name, or a folder that is no dataset, naming what is wrong with it.
    """
    check_dataset_name(name)
    if name in DATASETS:
        return DATASETS[name]
    return scan_image_folder(Path(name.removeprefix(FOLDER_PREFIX)))


def scan_image_folder(path: Path) -> DatasetInfo:
    """What a plan has to know of an image folder: classes, sizes of the splits, size of an image.

    If most images are small squares of one size, all must be, and they are used as they are; otherwise they are
    photographs of any size. Images are grey if all of them are.
    Where there is no validation part, a tenth of the training images is for validation, and where there is no test part
    either, another tenth for the test.

    Raises:
        ValueError: see `list_image_folder`; or no image is readable.
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
    """Training images of each class, by label."""
    counts = Counter(label for _, label in listed.train)
    return [counts[label] for label in range(len(listed.classes))]
