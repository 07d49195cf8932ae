"""Study dataset as recorded in the journal, because an image folder may change or disappear after the trials."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from study.plan.plan import StudyPlan
from trainables.data.class_names import with_class_names
from trainables.data.registry import dataset_info
from trainables.spec.datasets import DATASETS, DatasetInfo, largest_pixel
from trainables.spec.own_data import is_own_data, short_name, source_of


@dataclass(frozen=True)
class StudyData:
    """Description of a study's dataset.

    Args:
        source: origin of the dataset.
        num_classes: number of classes.
        class_names: class names in label order, empty if unknown.
        channels: number of image channels, 0 for text.
        image_size: image height and width in pixels, 0 for text.
        largest_pixel: largest possible pixel value.
        split_sizes: number of samples in the (train, validation, test) splits.
    """

    source: str
    num_classes: int
    class_names: tuple[str, ...]
    channels: int
    image_size: int
    largest_pixel: int
    split_sizes: tuple[int, int, int]


def described(plan: StudyPlan, dataset: Mapping[str, Any]) -> dict[str, Any]:
    """Return the dataset entry for the journal: a trial's report, plus facts only the files provide.

    Args:
        plan: study plan.
        dataset: hexadecimal `digest` and number of samples per split, as reported by a trial.
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
    """Return a study's dataset, from the journal if possible and from the current files otherwise.

    Args:
        plan: study plan.
        recorded: dataset entry in the journal, see `described`. None before the first trial has reported.

    Raises:
        ValueError: an image folder is missing or damaged and the journal does not describe it. Earlier versions wrote
            no description.
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
        source=source_of(short_name(name)) if is_own_data(name) else name.partition(":")[2],
        num_classes=len(known["class_names"]),
        class_names=tuple(known["class_names"]),
        channels=known["channels"],
        image_size=known["image_size"],
        largest_pixel=largest_pixel(name),
        split_sizes=(known["train"], known["validation"], known["test"]),
    )


def _sizes(info: DatasetInfo, known: Mapping[str, Any]) -> tuple[int, int, int]:
    """Return the split sizes. Recorded sizes take precedence: a split by whole sources may be smaller than planned."""
    train, validation, test = info.split_sizes
    return known.get("train", train), known.get("validation", validation), known.get("test", test)
