"""Conversion from arrays with any usual layout and range to uint8 pixels, channels last. Ambiguous ones are refused."""

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np

from trainables.data.image_folder import Part
from trainables.data.sources import DataError

_CHUNK: Final = 1024
_CHANNELS: Final = (1, 3)
_LARGEST: Final = 255
# Largest value of floats with fractions, above which rounding to whole numbers is harmless.
_LEAST_PEAK: Final = 64
_LAYOUTS: Final = "(N, H, W), (N, H, W, C) and (N, C, H, W) with 1 or 3 channels"


@dataclass(frozen=True)
class _Range:
    """Value range of an array."""

    lowest: float
    highest: float
    whole: bool


@dataclass(frozen=True)
class Conversion:
    """Array conversion to pixels.

    Args:
        factor: factor before rounding, 1 or 255.
        notes: conversion notes for the user; empty if nothing changes.
    """

    factor: int
    notes: tuple[str, ...]


def channels_last(images: np.ndarray, where: str) -> np.ndarray:
    """Return a view (N, H, W, C) of images.

    Raises:
        DataError: the shape is ambiguous or no image shape.
    """
    shape = images.shape
    if images.dtype.hasobject:
        raise DataError(f"{where}: an array of Python objects, not of numbers: images of different sizes give such "
                        "arrays. Resize them to one size and stack them")  # fmt: skip
    if images.dtype.kind not in "buif":
        raise DataError(f"{where}: images of type {images.dtype}; give uint8, or floats from 0 to 1")
    if len(shape) == 2:
        edge = math.isqrt(shape[1])
        if edge > 1 and edge**2 == shape[1]:
            return images.reshape(shape[0], edge, edge, 1)
    elif len(shape) == 3:
        return images[..., None]
    elif len(shape) == 4:
        last, first = shape[3] in _CHANNELS, shape[1] in _CHANNELS
        if first and last:
            raise DataError(
                f"{where}: images of shape {shape} may have their channels first or last: save them as "
                "(N, H, W, C) with H and W of more than 3 pixels, or as (N, H, W) if they are grey"
            )
        if last:
            return images
        if first:
            return images.transpose(0, 2, 3, 1)
        if 4 in (shape[1], shape[3]):
            raise DataError(f"{where}: images of shape {shape} have 4 channels: leave out the alpha channel")
    raise DataError(f"{where}: images of shape {shape}; usable are {_LAYOUTS}")


def choose_conversion(images: Mapping[Part, np.ndarray], where: Mapping[Part, str]) -> Conversion:
    """Decide how values become pixels from 0 to 255. All parts are read, and must agree.

    Raises:
        DataError: values are not finite, or their range has no certain meaning.
    """
    if all(array.dtype == np.uint8 for array in images.values()):
        return Conversion(1, ())
    if all(array.dtype == np.bool_ for array in images.values()):
        return Conversion(255, ("pixels are True and False, stored as 255 and 0",))
    kinds = {part: str(array.dtype) for part, array in images.items()}
    if len(set(kinds.values())) > 1:
        listed = ", ".join(f"{part} {kind}" for part, kind in kinds.items())
        raise DataError(f"{where['train']}: the parts have pixels of different types ({listed}): give all the same")
    ranges = {part: _range_of(array, where[part]) for part, array in images.items()}
    for part, found in ranges.items():
        if found.lowest < 0 or found.highest > _LARGEST:
            raise DataError(
                f"{where[part]}: pixels from {found.lowest:g} to {found.highest:g}; usable are 0 to 1 (floats) and 0 "
                "to 255. Give the pixels before normalisation, scaled to 8 bits: the study normalises them itself"
            )
    small = {part: found.highest <= 1 for part, found in ranges.items()}
    if len(set(small.values())) > 1:
        listed = ", ".join(f"{part} {found.highest:g}" for part, found in ranges.items())
        raise DataError(f"{where['train']}: the largest pixels differ in scale ({listed}): give all parts the same one")
    highest = max(found.highest for found in ranges.values())
    dtype = images["train"].dtype
    if small["train"]:
        if dtype.kind != "f":
            raise DataError(
                f"{where['train']}: whole numbers from 0 to 1 may be black and white, or nearly black: save them as "
                "bool, or times 255"
            )
        return Conversion(255, (f"pixels are {dtype} from 0 to {highest:g}, stored times 255 and rounded",))
    whole = all(found.whole for found in ranges.values())
    if not whole and highest < _LEAST_PEAK:
        raise DataError(
            f"{where['train']}: floats from 0 to {highest:g} with fractions fit neither 0 to 1 nor 0 to 255: scale "
            "them to one of these"
        )
    rounded = "" if whole else ", rounded"
    return Conversion(1, (f"pixels are {dtype} from 0 to {highest:g}, stored as 8 bits{rounded}",))


def to_pixels(images: np.ndarray, conversion: Conversion) -> np.ndarray:
    """Return (N, H, W, C) uint8 from a result of `channels_last`."""
    if images.dtype == np.uint8:
        return np.ascontiguousarray(images)
    out = np.empty(images.shape, dtype=np.uint8)
    for start, chunk in _chunks(images):
        values = chunk.astype(np.float64) * conversion.factor if chunk.dtype.kind == "f" else chunk
        if chunk.dtype == np.bool_:
            values = chunk.astype(np.uint8) * conversion.factor
        out[start : start + len(chunk)] = np.rint(values)
    return out


def check_contrast(images: np.ndarray, where: str) -> None:
    """Refuse constant channels in the training images, because normalisation divides by the deviation.

    Raises:
        DataError: all pixels of a channel are equal.
    """
    lowest, highest = images.min(axis=(0, 1, 2)), images.max(axis=(0, 1, 2))
    if (lowest == highest).any():
        channel = int(np.flatnonzero(lowest == highest)[0])
        raise DataError(f"{where}: all pixels of channel {channel} are {lowest[channel]}: there is nothing to see")


def _range_of(images: np.ndarray, where: str) -> _Range:
    lowest, highest, whole = math.inf, -math.inf, True
    for start, chunk in _chunks(images):
        if chunk.dtype.kind == "f":
            bad = ~np.isfinite(chunk)
            if bad.any():
                rows = np.flatnonzero(bad.reshape(len(chunk), -1).any(axis=1))
                raise DataError(f"{where}: image {start + int(rows[0])} has pixels that are NaN or infinite: mend or "
                                "remove such images")  # fmt: skip
            whole = whole and bool((chunk == np.rint(chunk)).all())
        lowest, highest = min(lowest, float(chunk.min())), max(highest, float(chunk.max()))
    return _Range(lowest, highest, whole)


def _chunks(images: np.ndarray) -> Iterator[tuple[int, np.ndarray]]:
    for start in range(0, len(images), _CHUNK):
        yield start, images[start : start + _CHUNK]
