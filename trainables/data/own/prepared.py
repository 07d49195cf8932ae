"""Checked samples of a user's dataset, and the facts needed by a plan."""

import hashlib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any, Final

import numpy as np

from trainables.data.image_folder import Part
from trainables.data.image_pixels import ImageError, is_grey, read_header
from trainables.data.image_progress import with_progress
from trainables.data.image_scan import LARGEST_KEPT, run_in_threads
from trainables.data.own.labels import to_labels
from trainables.data.own.pixels import channels_last, check_contrast, choose_conversion, to_pixels
from trainables.data.own.raw import PARTS, EncodedImages, RawData, few
from trainables.data.sources import DataError
from trainables.data.splits import class_shares
from trainables.spec.datasets import RESIZED_CROPS, DatasetInfo
from trainables.spec.own_data import DEFAULT_VIEWS, VIEWS

_VALIDATION_SHARE: Final = 0.1
_PHOTOGRAPH_SIZE: Final = 224
_MOST_ELONGATED: Final = 50
_LISTED: Final = 5
_OWN: Final = "own"  # views by user code


@dataclass(frozen=True)
class OwnInfo:
    """Facts about a dataset, needed by a plan.

    Args:
        sizes: sample count of each existing part.
        class_sizes: training samples per class.
        class_names: in label order.
        channels: 1 or 3.
        edge: height and width of all images; None for photographs, because they are resized.
        views: `crop_flip`, `crop`, `none`, or `own` for views by the user's code.
        notes: remarks for the user.
        own_views: number of views per image by user code; 0 without user code.
    """

    sizes: dict[Part, int]
    class_sizes: list[int]
    class_names: tuple[str, ...]
    channels: int
    edge: int | None
    views: str
    notes: tuple[str, ...]
    own_views: int = 0

    def to_json(self) -> dict[str, Any]:
        """Return JSON values."""
        return asdict(self)

    @classmethod
    def from_json(cls, content: Mapping[str, Any]) -> "OwnInfo":
        """Invert `to_json`."""
        lists = {name: tuple(content[name]) for name in ("class_names", "notes")}
        return cls(**{**content, **lists})

    def dataset_info(self, name: str, source: str) -> DatasetInfo:
        """Return the information for a plan. Missing parts are drawn as for image folders.

        Raises:
            ValueError: the classes have too few images for the splits.
        """
        total, test = self.sizes["train"], self.sizes.get("test", 0)
        if "validation" in self.sizes:
            sizes = (total, self.sizes["validation"], test)
        else:
            share = max(len(self.class_names), round(_VALIDATION_SHARE * total))
            drawn = 0 if test else share
            sizes = (total - share - drawn, share, test or share)
            try:
                class_shares(self.class_sizes, (sizes[0], share, drawn), names=self.class_names)
            except ValueError as error:
                raise DataError(f"{source}: {error}") from None
        edge, augmented = self.edge, self.views not in ("none", _OWN)
        return DatasetInfo(
            name=name,
            num_classes=len(self.class_names),
            channels=self.channels,
            image_size=edge or _PHOTOGRAPH_SIZE,
            split_sizes=sizes,
            padding=max(1, edge // 8) if edge and augmented else 0,
            mirrored=self.views == "crop_flip",
            layouts=(),
            source=source,
            resized_crops=0 if edge else RESIZED_CROPS if augmented else 1,
            class_names=self.class_names,
            own_views=self.own_views,
        )


class Prepared:
    """Checked samples, from which parts are decoded.

    Args:
        raw: samples as given by the user.

    Raises:
        DataError: the samples cannot be used. The message gives the problem, the allowed values and a remedy.
    """

    def __init__(self, raw: RawData) -> None:
        where = {part: each.where for part, each in raw.parts.items()}
        names = {each.class_names for each in raw.parts.values()}
        if len(names) > 1:
            raise DataError(f"{raw.where}: the parts list different class names: give all the same")
        labels = to_labels({part: each.labels for part, each in raw.parts.items()}, where, next(iter(names)))
        self._labels, classes = labels.by_part, labels.class_names
        self._where = where
        self._encoded = {part: e.images for part, e in raw.parts.items() if isinstance(e.images, EncodedImages)}
        self._arrays: dict[Part, np.ndarray] = {}
        if self._encoded and len(self._encoded) < len(raw.parts):
            raise DataError(f"{raw.where}: some parts have encoded images and others arrays: give all the same")
        if self._encoded:
            channels, edge, found = _scan(self._encoded, where)
        else:
            channels, edge, found = self._read_arrays({p: e.images for p, e in raw.parts.items()})  # type: ignore[misc]
        views = raw.views or DEFAULT_VIEWS
        if views not in VIEWS:
            raise DataError(f"{raw.where}: views {views!r}; allowed are {', '.join(VIEWS)}")
        if edge is None and views == "crop":
            raise DataError(f"{raw.where}: photographs have the views crop_flip (random resized crops) or none")
        counts = np.bincount(self._labels["train"], minlength=len(classes)).tolist()
        self.info = OwnInfo(
            sizes={part: len(self._labels[part]) for part in PARTS if part in self._labels},
            class_sizes=counts,
            class_names=classes,
            channels=channels,
            edge=edge,
            views=_OWN if raw.own_views else views,
            own_views=raw.own_views,
            notes=(*raw.notes, *labels.notes, *found, *self._lacking(classes, counts)),
        )

    def _read_arrays(self, images: Mapping[Part, np.ndarray]) -> tuple[int, int | None, tuple[str, ...]]:
        arrays = {part: channels_last(array, self._where[part]) for part, array in images.items()}
        shapes = {part: array.shape[1:] for part, array in arrays.items()}
        if len(set(shapes.values())) > 1:
            listed = ", ".join(f"{part} {' x '.join(map(str, shape))}" for part, shape in shapes.items())
            raise DataError(
                f"{self._where['train']}: the parts have images of different shapes ({listed}): resize them"
            )
        conversion = choose_conversion(arrays, self._where)
        self._arrays = {part: to_pixels(array, conversion) for part, array in arrays.items()}
        check_contrast(self._arrays["train"], self._where["train"])
        height, width, channels = shapes["train"]
        if max(height, width) > _MOST_ELONGATED * min(height, width):
            raise DataError(f"{self._where['train']}: images of {height} x {width} pixels are too elongated: crop them")
        edge = height if height == width <= LARGEST_KEPT else None
        return channels, edge, conversion.notes

    def _lacking(self, classes: tuple[str, ...], counts: list[int]) -> list[str]:
        """Return notes on classes without test images; refuse classes without validation images."""
        notes = []
        for part in ("validation", "test"):
            if part not in self._labels:
                continue
            present = set(self._labels[part].tolist())
            lacking = [name for number, name in enumerate(classes) if number not in present]
            needed = [name for name in lacking if counts[classes.index(name)] > 1]
            if part == "validation" and needed:
                raise DataError(
                    f"{self._where['validation']}: no image of {few(needed)} ({len(needed)} of {len(classes)} classes)"
                    ". Every class with two or more training images needs a validation image: add some, or leave the "
                    "part out to validate on a tenth of the train part"
                )
            if lacking:
                notes.append(f"{part} has no images of {few(lacking)} ({len(lacking)} of {len(classes)} classes)")
        return notes

    def content_key(self, part: Part) -> str:
        """Return a hash of one part's samples."""
        content = hashlib.sha256(self._labels[part].tobytes())
        if part in self._arrays:
            content.update(f"{self._arrays[part].shape}".encode())
            content.update(self._arrays[part].data)
        else:
            for each in self._encoded[part]:
                content.update(f"{len(each)}|".encode() + each)
        return content.hexdigest()

    def decode(self, info: DatasetInfo, part: Part) -> "tuple[Any, np.ndarray]":
        """Decode one part to (N, C, size, size) uint8 tensors, channels last in memory, and labels (N,) int64.

        Raises:
            DataError: images are damaged or have another size. The message names their rows.
        """
        import torch

        size = info.stored_size
        if part in self._arrays and not info.resized_crops:
            array = self._arrays[part]
            pixels = torch.from_numpy(array if array.flags.writeable else array.copy())  # a mapped file is read-only
            return pixels.permute(0, 3, 1, 2), self._labels[part]
        images = torch.empty((len(self._labels[part]), size, size, info.channels), dtype=torch.uint8)
        for number, (image, _) in enumerate(self._decoded(info, part, size)):
            images[number] = image
        return images.permute(0, 3, 1, 2), self._labels[part]

    def _decoded(self, info: DatasetInfo, part: Part, size: int) -> Any:
        from trainables.data.folders import decode_image, resize_pixels  # imports torchvision
        from trainables.data.image_scan import check_peaks

        if part in self._arrays:
            yield from ((resize_pixels(array, size), None) for array in self._arrays[part])
            return
        encoded = self._encoded[part]
        results = run_in_threads(lambda number: decode_image(info, size, encoded[number]), range(len(encoded)))
        problems, peaks = {}, []
        for number, result in enumerate(with_progress(results, "decoding images", len(encoded))):
            if isinstance(result, ImageError):
                problems[number] = str(result)
                continue
            if result[1] is not None:
                peaks.append(result[1])
            if not problems:
                yield result
        if problems:
            raise _unusable(self._where[part], problems, len(encoded))
        if part == "train":
            check_peaks(peaks)


def _scan(encoded: Mapping[Part, EncodedImages], where: Mapping[Part, str]) -> tuple[int, int | None, tuple[str, ...]]:
    """Read all headers; return channels, edge and notes, by the rules of image folders."""
    sizes: Counter[tuple[int, int]] = Counter()
    modes: Counter[str] = Counter()
    headers: dict[Part, list[Any]] = {}
    for part, images in encoded.items():
        read = run_in_threads(lambda number, images=images: read_header(images[number]), range(len(images)))  # type: ignore[misc]
        headers[part] = list(with_progress(read, "reading images", len(images)))
        bad = {number: str(each) for number, each in enumerate(headers[part]) if isinstance(each, ImageError)}
        if bad:
            raise _unusable(where[part], bad, len(images))
        sizes.update((each.width, each.height) for each in headers[part])
        modes.update(each.mode for each in headers[part])
    (width, height), most = sizes.most_common(1)[0]
    small = most * 2 > sizes.total() and width == height <= LARGEST_KEPT
    for part, each in headers.items():
        wrong = {}
        for number, header in enumerate(each):
            if small and (header.width, header.height) != (width, height):
                wrong[number] = f"{header.width} x {header.height} pixels: most have {width} x {height}, so all must"
            elif max(header.width, header.height) > _MOST_ELONGATED * min(header.width, header.height):
                wrong[number] = f"{header.width} x {header.height} pixels: too elongated"
        if wrong:
            raise _unusable(where[part], wrong, len(each))
    grey = all(map(is_grey, modes))
    return (1 if grey else 3), (width if small else None), ()


def _unusable(where: str, problems: Mapping[int, str], total: int) -> DataError:
    listed = [f"row {number}: {reason}" for number, reason in [*problems.items()][:_LISTED]]
    more = [f"and {len(problems) - _LISTED:,} more"] if len(problems) > _LISTED else []
    return DataError("\n  ".join([f"{where}: {len(problems):,} of {total:,} images cannot be used:", *listed, *more])
                     + "\nMend, convert or remove these rows.")  # fmt: skip
