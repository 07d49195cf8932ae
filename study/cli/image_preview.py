"""Lines in the plan about images from files or code: the source of each split, and how images are read."""

from pathlib import Path
from typing import Any, Final

from study.plan.plan import StudyPlan
from trainables.data.image_folder import ImageFolder, list_image_folder
from trainables.data.own.opened import own_info
from trainables.data.registry import dataset_info
from trainables.spec.datasets import FOLDER_PREFIX
from trainables.spec.own_data import is_own_data

_MODES: Final = {"L": "grey", "RGB": "RGB"}
_MOST_SUFFIXES: Final = 8


def images_summary(plan: StudyPlan) -> dict[str, Any] | None:
    """Return a JSON-compatible description of how an image folder's files are read. None for other datasets.

    Returns:
        `splits` (source of each split), `decoded_as`, `image_size`, `photographs`, `converted` (number of images by
        kind), `skipped` (number of files by suffix), `outside_classes` and `notes`.
    """
    if (listed := _folder(plan)) is None:
        return None
    from trainables.data.image_scan import scan_of  # imports Pillow and NumPy

    info, scan = dataset_info(plan.base.dataset), scan_of(listed)
    return {
        "splits": _origins(listed),
        "decoded_as": _MODES[scan.mode],
        "image_size": info.image_size,
        "photographs": bool(info.resized_crops),
        "converted": scan.converted,
        "skipped": dict(listed.skipped),
        "outside_classes": listed.outside,
        "notes": list(listed.notes),
    }


def validation_origin(plan: StudyPlan) -> str:
    """Return the source of the validation split, for the line about the splits."""
    listed = _folder(plan)
    if listed is not None and listed.validation:
        return _origins(listed)["validation"]
    if is_own_data(plan.base.dataset) and "validation" in own_info(plan.base.dataset).sizes:
        return "the validation part"
    return f"stratified, seed {plan.example_config.split_seed}"


def image_lines(plan: StudyPlan) -> list[str]:
    """Return lines about reading an image folder, or a user's own dataset. Empty for other datasets."""
    if is_own_data(plan.base.dataset):
        return _own_lines(plan)
    summary = images_summary(plan)
    if summary is None:
        return []
    size = summary["image_size"]
    shape = f"photographs, resized to {size}" if summary["photographs"] else f"{size} x {size} pixels"
    origins = ", ".join(f"{split} from {origin}" for split, origin in summary["splits"].items())
    converted = ", ".join(f"{count:,} {kind}" for kind, count in summary["converted"].items())
    lines = [
        f"images     {origins}; {shape}, {summary['decoded_as']}",
        f"           converted to {summary['decoded_as']}: {converted or 'none'}",
    ]
    suffixes = list(summary["skipped"].items())
    skipped = [f"{count:,} {suffix}" for suffix, count in suffixes[:_MOST_SUFFIXES]]
    if rest := suffixes[_MOST_SUFFIXES:]:
        skipped.append(f"{sum(count for _, count in rest):,} with {len(rest)} other suffixes")
    if summary["outside_classes"]:
        skipped.append(f"{summary['outside_classes']:,} images outside class folders")
    if skipped:
        lines.append(f"           skipped: {', '.join(skipped)}")
    return lines + [f"           {note}" for note in summary["notes"]]


def _own_lines(plan: StudyPlan) -> list[str]:
    own, info = own_info(plan.base.dataset), dataset_info(plan.base.dataset)
    drawn = "a tenth of the train part"
    origins = {part: f"the {part} part" if part in own.sizes else drawn for part in ("train", "validation", "test")}
    shape = f"{own.edge} x {own.edge} pixels" if own.edge else f"photographs, resized to {info.image_size}"
    colours = _MODES["L" if own.channels == 1 else "RGB"]
    listed = ", ".join(f"{part} from {origin}" for part, origin in origins.items())
    views = f"{own.views}, {info.num_views:,} view{'s' if info.num_views > 1 else ''} of each image"
    return [
        f"images     {listed}; {shape}, {colours}",
        f"           augmentation: {views}",
        *(f"           {note}" for note in own.notes),
    ]


def _folder(plan: StudyPlan) -> ImageFolder | None:
    name = plan.base.dataset
    return list_image_folder(Path(name.removeprefix(FOLDER_PREFIX))) if name.startswith(FOLDER_PREFIX) else None


def _origins(listed: ImageFolder) -> dict[str, str]:
    folders = dict(listed.folders)
    train = f"{folders['train']}/" if "train" in folders else "the class folders"
    drawn = f"a tenth of {train}"
    return {
        "train": train,
        "validation": f"{folders['validation']}/" if "validation" in folders else drawn,
        "test": f"{folders['test']}/" if "test" in folders else drawn,
    }
