"""NumPy array files: one .npz, or a folder with .npy files. Pickled objects are never loaded."""

import re
import zipfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Final

import numpy as np

from trainables.data.image_folder import Part, shown
from trainables.data.own.raw import PART_WORDS, RawData, RawPart, check_parts, few, with_test
from trainables.data.sources import DataError
from trainables.display.nearest import did_you_mean

_IMAGE_WORDS: Final = ("x", "image", "images", "img", "imgs", "data", "pixels")
_LABEL_WORDS: Final = ("y", "label", "labels", "target", "targets")
_CLASS_NAMES: Final = ("class_names", "classes")
_EXAMPLE: Final = "x_train, y_train, x_test and y_test, or train_images, train_labels, ..."
_PICKLED: Final = (
    "it holds Python objects, which are stored by pickle and could run any code, so they are not loaded. Save images "
    "as a uint8 array of one shape, and labels as numbers or as an array of type str"
)


def read_arrays(path: Path, options: Mapping[str, str]) -> RawData:
    """Read a .npz file or a folder with .npy files.

    Raises:
        DataError: a file cannot be read, or the array names do not separate images from labels. The message lists the
            allowed names.
    """
    where = shown(path)
    if path.is_dir():
        files = {each.stem: each for each in sorted(path.glob("*.npy"))}
        return data_of_arrays({stem: partial(_load, each) for stem, each in files.items()}, where, options)
    if path.suffix == ".npy":
        raise DataError(f"{where}: one .npy file holds images or labels, not both: give the folder with {_EXAMPLE}")
    try:
        with np.load(path, allow_pickle=False) as archive:
            if not isinstance(archive, np.lib.npyio.NpzFile):
                raise DataError(f"{where}: one array, not a .npz file of several: save it by numpy.savez")
            return data_of_arrays(
                {name: partial(_member, archive, name, where) for name in archive.files}, where, options
            )
    except DataError:
        raise
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise _unreadable(where, error) from None


def data_of_arrays(
    members: Mapping[str, Callable[[], Any]], where: str, options: Mapping[str, str], views: str = ""
) -> RawData:
    """Sort named arrays into parts, images and labels.

    Args:
        members: function returning the array, by name.
        where: place for errors.
        options: `image` and `label` replace the usual words, as in `label=fine` for `fine_train`.
        views: views declared by the place.

    Raises:
        DataError: the names are ambiguous, or a part lacks images or labels.
    """
    words = {"image": _words(options, "image", _IMAGE_WORDS), "label": _words(options, "label", _LABEL_WORDS)}
    found: dict[tuple[Part, str], str] = {}
    ignored = []
    for name in members:
        key = _meaning(name, words)
        if key is None:
            ignored += [name] if name not in _CLASS_NAMES else []
        elif key in found:
            raise DataError(f"{where}: {found[key]} and {name} both look like the {key[1]}s of the {key[0]} part: "
                            f"remove one, or name the word by ,{key[1]}=WORD")  # fmt: skip
        else:
            found[key] = name
    parts: dict[Part, RawPart] = {}
    for part in dict.fromkeys(part for part, _ in found):
        names = [found.get((part, kind)) for kind in ("image", "label")]
        if None in names:
            kind = "images" if names[0] is None else "labels"
            raise DataError(f"{where}: the {part} part has no {kind}: there is {few(members)}; usual are {_EXAMPLE}")
        images, labels = (members[str(name)]() for name in names)
        if images.ndim < 2 or not labels.ndim:
            raise DataError(f"{where}: {names[0]} has the shape {images.shape}, {names[1]} {labels.shape}; images need "
                            "(N, H, W) or more, labels (N,)")  # fmt: skip
        parts[part] = RawPart(images, labels, f"{where}: {part}", _class_names(members))
    if not parts:
        hint = "".join(did_you_mean(name, ["x_train", "train_images"]) for name in [*members][:1])
        raise DataError(f"{where}: no array names images and labels: there is {few(members) or 'nothing'}{hint}; usual "
                        f"are {_EXAMPLE}")  # fmt: skip
    parts, notes = with_test(parts)
    check_parts(where, parts)
    if ignored:
        notes += (f"ignored: {few(ignored)}",)
    return RawData(where, parts, views or options.get("views", ""), notes)


def _class_names(members: Mapping[str, Callable[[], Any]]) -> tuple[str, ...]:
    for name in _CLASS_NAMES:
        if name in members:
            return tuple(map(str, members[name]().tolist()))
    return ()


def _words(options: Mapping[str, str], kind: str, usual: Iterable[str]) -> tuple[str, ...]:
    return (options[kind].lower(),) if kind in options else tuple(usual)


def _meaning(name: str, words: Mapping[str, tuple[str, ...]]) -> tuple[Part, str] | None:
    """Return part and kind of an array by name, such as `x_train` or `train_labels`."""
    pieces = [piece for piece in re.split(r"[^a-z0-9]+", name.lower()) if piece]
    parts = [PART_WORDS[piece] for piece in pieces if piece in PART_WORDS]
    rest = "_".join(piece for piece in pieces if piece not in PART_WORDS)
    if len(parts) > 1:
        return None
    if not parts:  # xtrain, trainimages
        for word, part in sorted(PART_WORDS.items(), key=lambda item: -len(item[0])):
            joined = rest.removeprefix(word) if rest.startswith(word) else rest.removesuffix(word)
            if joined != rest and any(joined in each for each in words.values()):
                parts, rest = [part], joined
                break
    for kind, each in words.items():
        if rest in each:
            return (parts[0] if parts else "train"), kind
    return None


def _load(path: Path) -> np.ndarray:
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, EOFError, ValueError) as error:
        raise _unreadable(shown(path), error) from None


def _member(archive: Any, name: str, where: str) -> np.ndarray:
    try:
        return archive[name]
    except (OSError, EOFError, ValueError, zipfile.BadZipFile) as error:
        raise _unreadable(f"{where}: {name}", error) from None
    except Exception as error:  # zlib.error of a damaged member
        raise _unreadable(f"{where}: {name}", error) from None


def _unreadable(where: str, error: Exception) -> DataError:
    if "pickle" in str(error).lower():
        return DataError(f"{where}: {_PICKLED}")
    return DataError(f"{where}: not a complete NumPy file ({error or type(error).__name__})")
