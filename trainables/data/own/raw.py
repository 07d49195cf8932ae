"""Images and labels as the user gave them, before any conversion."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import numpy as np

from trainables.data.image_folder import Part
from trainables.data.sources import DataError

PARTS: Final[tuple[Part, ...]] = ("train", "validation", "test")
PART_WORDS: Final[dict[str, Part]] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "dev": "validation",
    "test": "test",
    "testing": "test",
}
_NAMED: Final = 5


class EncodedImages(Sequence[bytes]):
    """Encoded images, such as PNG or JPEG, from the rows of a table.

    Args:
        rows: N encoded images; anything with a length and items of type bytes or Arrow scalar.
    """

    def __init__(self, rows: Any) -> None:
        self._rows = rows

    def __len__(self) -> int:
        return len(self._rows)

    def __getitem__(self, index: Any) -> Any:
        found = self._rows[index]
        return found if isinstance(found, bytes) else found.as_py()

    def __iter__(self) -> Iterator[bytes]:
        return (self[number] for number in range(len(self)))


@dataclass(frozen=True)
class RawPart:
    """One dataset part.

    Args:
        images: array with one image per row, or encoded images.
        labels: one label per image.
        where: place for errors, such as `scans.npz: x_train`.
        class_names: class names by label, if listed in the place.
    """

    images: "np.ndarray | EncodedImages"
    labels: Any
    where: str
    class_names: tuple[str, ...] = ()


@dataclass(frozen=True)
class RawData:
    """Dataset parts.

    Args:
        where: dataset place for errors.
        parts: the existing parts. The train part always exists.
        views: `crop_flip`, `crop` or `none`; empty for the default.
        notes: remarks on how the place was read.
        augment: user's function, returning a random view of an image, if there is one.
        own_views: number of views per image by `augment`; 0 without it.
    """

    where: str
    parts: Mapping[Part, RawPart]
    views: str = ""
    notes: tuple[str, ...] = field(default=())
    augment: Callable[[Any], Any] | None = None
    own_views: int = 0


def few(names: Iterable[object]) -> str:
    """Join names with commas; a long list is cut."""
    listed = [*map(str, names)]
    return ", ".join(listed[:_NAMED]) + (", ..." if len(listed) > _NAMED else "")


def with_test(parts: Mapping[Part, RawPart]) -> tuple[dict[Part, RawPart], tuple[str, ...]]:
    """Use a validation part without a test part as the test part, as for image folders."""
    if "validation" not in parts or "test" in parts:
        return dict(parts), ()
    found = dict(parts)
    found["test"] = found.pop("validation")
    return found, ("there is a validation part but no test part, so it is the test part, as in an image folder",)


def check_parts(where: str, parts: Mapping[Part, RawPart]) -> None:
    """Check that there is a train part. Every part must have as many labels as images, and at least one.

    Raises:
        DataError: a part is missing, empty or of unequal lengths.
    """
    if "train" not in parts:
        raise DataError(f"{where}: there is no train part, only {few(parts) or 'nothing'}: name the arrays or files "
                        "train, test and, if there is one, validation")  # fmt: skip
    for part, each in parts.items():
        images, labels = len(each.images), len(each.labels)
        if images != labels:
            raise DataError(f"{each.where}: {images:,} images but {labels:,} labels in the {part} part")
        if not images:
            raise DataError(f"{each.where}: the {part} part is empty: add samples, or leave the part out")
