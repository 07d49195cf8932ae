"""Conversion of labels to the integers 0 to K - 1 with class names."""

from collections.abc import Mapping, Sequence
from typing import Any, Final, NamedTuple

import numpy as np

from trainables.data.image_folder import Part
from trainables.data.own.raw import few
from trainables.data.sources import DataError

_REMEDY: Final = "give one class per image, as a number or a name"


class Labels(NamedTuple):
    """Labels in all parts.

    Args:
        by_part: (N,) int64 of each part.
        class_names: in label order.
        notes: conversion notes for the user.
    """

    by_part: dict[Part, np.ndarray]
    class_names: tuple[str, ...]
    notes: tuple[str, ...]


def to_labels(raw: Mapping[Part, Any], where: Mapping[Part, str], class_names: Sequence[str] = ()) -> Labels:
    """Convert labels. The classes are those of the train part.

    Args:
        raw: labels of each part: whole numbers, one-hot rows, names or booleans.
        where: each part's place, for errors.
        class_names: names of the classes with numbers from 0, or the names used as labels, in class order. Without
            them, the classes are the sorted values.

    Raises:
        DataError: labels are missing or of another kind, or a part has a class missing in the train part.
    """
    notes: list[str] = []
    plain = {part: _plain(labels, where[part], notes) for part, labels in raw.items()}
    kinds = {"text" if values.dtype.kind == "U" else "numbers" for values in plain.values()}
    if len(kinds) > 1:
        raise DataError(f"{where['train']}: labels are names in one part and numbers in another: {_REMEDY}")
    if class_names:
        plain = {part: _numbered(values, where[part], class_names) for part, values in plain.items()}
        found = _counted(plain, where, tuple(class_names))
    else:
        found = _sorted_values(plain, where, notes)
    return Labels(found.by_part, found.class_names, tuple(dict.fromkeys(notes)))


def _plain(labels: Any, where: str, notes: list[str]) -> np.ndarray:
    """Return (N,) int64 or text."""
    values = _array(labels, where)
    if values.ndim == 2 and values.shape[1] == 1:
        values = values[:, 0]
    if values.ndim == 2 and values.dtype.kind in "buif":
        ones = (values == 1).sum(axis=1)
        if not (((values == 0) | (values == 1)).all() and (ones == 1).all()):
            row = int(np.flatnonzero(~((ones == 1) & ((values == 0) | (values == 1)).all(axis=1)))[0])
            raise DataError(
                f"{where}: labels of shape {values.shape} are not one-hot: row {row} has {few(values[row].tolist())}. "
                f"Several or weighted classes per image are not usable: {_REMEDY}"
            )
        notes.append(f"labels are one-hot rows of {values.shape[1]}, read as numbers")
        return values.argmax(axis=1).astype(np.int64)
    if values.ndim != 1:
        raise DataError(f"{where}: labels of shape {values.shape}: {_REMEDY}")
    if values.dtype.kind == "f":
        if (bad := np.flatnonzero(~np.isfinite(values))).size:
            raise DataError(
                f"{where}: {len(bad):,} labels are missing, the first of image {bad[0]}: remove these images"
            )
        if (bad := np.flatnonzero(values != np.rint(values))).size:
            raise DataError(f"{where}: label {values[bad[0]]:g} of image {bad[0]} is no whole number: {_REMEDY}")
        return values.astype(np.int64)
    if values.dtype.kind in "iu":
        return values.astype(np.int64)
    if values.dtype.kind == "b":
        return values.astype(np.str_)
    if (bad := np.flatnonzero(np.char.strip(values) == "")).size:
        raise DataError(f"{where}: {len(bad):,} labels are empty, the first of image {bad[0]}: remove these images")
    return values


def _array(labels: Any, where: str) -> np.ndarray:
    """Return labels as a number, boolean or text array."""
    values = labels if isinstance(labels, np.ndarray) else None
    if values is None or values.dtype.hasobject:
        listed = list(labels)
        missing = [number for number, each in enumerate(listed) if each is None]
        if missing:
            raise DataError(
                f"{where}: {len(missing):,} labels are missing, the first of image {missing[0]}: remove these images"
            )
        if listed and all(isinstance(each, str) for each in listed):
            return np.array(listed, dtype=np.str_)
        try:
            values = np.array(listed)
        except ValueError:
            raise DataError(f"{where}: labels of different lengths: {_REMEDY}") from None
    if values.dtype.kind == "S":
        values = np.char.decode(values, "utf-8", "replace")
    if values.dtype.kind not in "buifU":
        kind = type(labels[0]).__name__ if values.dtype.hasobject and len(labels) else str(values.dtype)
        raise DataError(f"{where}: labels of type {kind}: {_REMEDY}")
    return values


def _numbered(values: np.ndarray, where: str, names: Sequence[str]) -> np.ndarray:
    """Return the numbers of names, in class name order. Numbers stay."""
    if values.dtype.kind != "U":
        return values
    places = {name: number for number, name in enumerate(names)}
    if strange := [name for name in np.unique(values).tolist() if name not in places]:
        raise DataError(f"{where}: labels {few(strange)} are not among the class names {few(names)}")
    return np.array([places[name] for name in values.tolist()], dtype=np.int64)


def _counted(plain: Mapping[Part, np.ndarray], where: Mapping[Part, str], names: tuple[str, ...]) -> Labels:
    """Check class numbers against the class names."""
    if len(names) < 2 or len(set(names)) < len(names):
        raise DataError(f"{where['train']}: class names {few(names)}: at least two are needed, each once")
    for part, values in plain.items():
        bad = np.flatnonzero((values < 0) | (values >= len(names)))
        if bad.size:
            hint = " (-1 stands for a missing label)" if values[bad[0]] == -1 else ""
            raise DataError(
                f"{where[part]}: label {values[bad[0]]} of image {bad[0]}{hint} is outside 0 to {len(names) - 1}, the "
                f"numbers of the {len(names)} class names ({len(bad):,} such labels)"
            )
    if lacking := [name for number, name in enumerate(names) if not (plain["train"] == number).any()]:
        raise DataError(
            f"{where['train']}: no training image of {few(lacking)} ({len(lacking)} of {len(names)} classes): add some,"
            " or leave these class names out and count the others from 0"
        )
    return Labels(dict(plain), names, ())


def _sorted_values(plain: Mapping[Part, np.ndarray], where: Mapping[Part, str], notes: list[str]) -> Labels:
    """Number the classes in the order of their values in the train part."""
    values = np.unique(plain["train"])
    if len(values) < 2:
        raise DataError(f"{where['train']}: all labels are {values[0]}; at least two classes are needed")
    by_part: dict[Part, np.ndarray] = {}
    for part, labels in plain.items():
        if labels.dtype.kind == "i" and (bad := np.flatnonzero(labels < 0)).size:
            raise DataError(
                f"{where[part]}: label {labels[bad[0]]} of image {bad[0]} is negative, which usually stands for a "
                f"missing label ({len(bad):,} such labels): remove these images"
            )
        if (strange := np.setdiff1d(labels, values)).size:
            raise DataError(
                f"{where[part]}: classes missing from the train part: {few(strange.tolist())}. Every class needs "
                "training images: add them, or remove these images"
            )
        by_part[part] = np.searchsorted(values, labels).astype(np.int64)
    if values.dtype.kind == "i" and not np.array_equal(values, np.arange(len(values))):
        notes.append(
            f"labels are {few(values.tolist())} and not the numbers from 0 to {len(values) - 1}: they become class "
            "names, numbered in their order"
        )
    return Labels(by_part, tuple(map(str, values.tolist())), ())
