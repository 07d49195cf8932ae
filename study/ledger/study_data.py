"""The data of a study as its trials had them, from the journal: an image folder may have changed or be gone since."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from study.plan.plan import StudyPlan
from trainables.data.class_names import with_class_names
from trainables.data.registry import dataset_info
from trainables.spec.datasets import DATASETS, DatasetInfo, largest_pixel


@dataclass(frozen=True)
class StudyData:
    """The dataset of a study.

    Args:
        source: where it comes from.
        num_classes: classes.
        class_names: in the order of the labels; nothing if they are not known.
        channels: of an image; 0 for text.
        image_size: height and width of an image in pixels; 0 for text.
        largest_pixel: the largest value that a pixel can have.
        split_sizes: samples in (train, validation, test).
    """

    source: str
    num_classes: int
    class_names: tuple[str, ...]
    channels: int
    image_size: int
    largest_pixel: int
    split_sizes: tuple[int, int, int]


def described(plan: StudyPlan, dataset: Mapping[str, Any]) -> dict[str, Any]:
    """What the journal keeps of the data: the trials' report, and what only the files know.

    Args:
        plan: the study.
        dataset: `digest`, hexadecimal, and the number of samples in each split, as a trial reported them.
    """
    info = dataset_info(plan.base.dataset)
    if info.name in DATASETS and info.class_names:
        return dict(dataset)
    return {
        **dataset,
        "test": info.split_sizes[2],
        "channels": info.channels,
        "image_size": info.image_size,
        "class_names": list(with_class_names(info, plan.data_root).class_names),
    }


def data_of(plan: StudyPlan, recorded: Mapping[str, Any] | None) -> StudyData:
    """The data of a study, as far as the journal has them from there; otherwise as they are now.

    Args:
        plan: the study.
        recorded: of the journal, see `described`; None before a trial has reported.

    Raises:
        ValueError: an image folder is not there or is damaged, and the journal does not describe it, as those of
            earlier versions.
    """
    name, known = plan.base.dataset, dict(recorded or {})
    if name in DATASETS or "class_names" not in known:
        info = with_class_names(dataset_info(name), plan.data_root)
        names = tuple(known.get("class_names") or info.class_names)
        return StudyData(
            info.source,
            info.num_classes,
            names,
            info.channels,
            info.image_size,
            info.largest_pixel,
            _sizes(info, known),
        )
    return StudyData(
        source=name.partition(":")[2],
        num_classes=len(known["class_names"]),
        class_names=tuple(known["class_names"]),
        channels=known["channels"],
        image_size=known["image_size"],
        largest_pixel=largest_pixel(name),
        split_sizes=(known["train"], known["validation"], known["test"]),
    )


def _sizes(info: DatasetInfo, known: Mapping[str, Any]) -> tuple[int, int, int]:
    """Recorded sizes come first: a validation split of whole sources may be smaller than planned."""
    train, validation, test = info.split_sizes
    return known.get("train", train), known.get("validation", validation), known.get("test", test)
