"""What is known of a dataset before it is read; imports no torch, so that a plan is checked in no time."""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trainables.naming import unknown_name


@dataclass(frozen=True)
class DatasetInfo:
    """A dataset's shape, splits and files.

    Args:
        name: canonical name, as flags take it.
        num_classes: classes.
        channels: image channels.
        image_size: height and width in pixels.
        split_sizes: samples in (train, validation, test).
        num_views: augmented views of each sample, the unchanged one included.
        files: what must lie under the data root, relative to it; nothing for a dataset that ships with a
            library.
        source: where it comes from.
    """

    name: str
    num_classes: int
    channels: int
    image_size: int
    split_sizes: tuple[int, int, int]
    num_views: int
    files: tuple[str, ...]
    source: str

    def missing_files(self, root: Path | None) -> list[Path]:
        """Those of `files` that are not under `root`."""
        base = root if root is not None else Path()
        return [base / name for name in self.files if not (base / name).is_file()]


DATASETS: Final[dict[str, DatasetInfo]] = {
    "digits": DatasetInfo(
        name="digits",
        num_classes=10,
        channels=1,
        image_size=8,
        split_sizes=(1077, 360, 360),
        num_views=9,
        files=(),
        source="scikit-learn's load_digits (UCI optical recognition of handwritten digits, test part)",
    ),
}


def check_dataset_name(name: str) -> str:
    """`name`, if it is a known dataset.

    Raises:
        ValueError: naming the nearest known name.
    """
    if name not in DATASETS:
        raise ValueError(unknown_name("dataset", name, DATASETS))
    return name
