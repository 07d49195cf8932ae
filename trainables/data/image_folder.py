"""Listing of an image folder: files, classes and splits. Reads file names only, never file contents.

The layout is the one of torchvision's `ImageFolder`. Class folders are numbered in name order. A class contains all
images below the class folder, and links are followed. Hidden files and files left by operating systems are ignored.
"""

import functools
import os
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from trainables.display.numbers import counted

Part = Literal["train", "validation", "test"]
Labelled = tuple[tuple[str, int], ...]

# IMG_EXTENSIONS of torchvision, two more JPEG suffixes, and GIF.
IMAGE_SUFFIXES: Final = (
    ".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".jfif", ".jpe", ".gif",
)  # fmt: skip
_PART_NAMES: Final[dict[str, Part]] = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
# Part names common on Kaggle: training_set, test_set, seg_train, TrainImages.
_LIKE_PART: Final = re.compile(r"(?<![a-z])(train|val|valid|test)(ing|ation)?[ _-]?(set|data|images)?(?![a-z])")
# Files and folders without a leading dot created by macOS, Windows and network disks, in lower case.
_LEFT_BY_SYSTEMS: Final = frozenset(
    {
        "__macosx", "@eadir", "@tmp", "#recycle", "#snapshot", "@recycle", "@recently-snapshot", "$recycle.bin",
        "system volume information", "lost+found", "thumbs.db", "ehthumbs.db", "desktop.ini", "icon\r",
    }
)  # fmt: skip
_NAMED: Final = 5


@dataclass(frozen=True)
class ImageFolder:
    """Image files in a folder.

    Args:
        path: the folder.
        classes: sorted class names. A label is a position in this list.
        train: (path relative to the folder, label) of every training file, ordered by class, sub-folder and name.
        test: test files; empty without a test part.
        validation: validation files; empty without a validation part.
        folders: (part, sub-folder name) of each part; empty for a plain `CLASS/*` folder.
        skipped: (suffix, file count) for files without an image suffix, most frequent first.
        outside: image file count outside all class folders.
        notes: further remarks for the user on how the folder is read.
    """

    path: Path
    classes: tuple[str, ...]
    train: Labelled
    test: Labelled
    validation: Labelled = ()
    folders: tuple[tuple[Part, str], ...] = ()
    skipped: tuple[tuple[str, int], ...] = ()
    outside: int = 0
    notes: tuple[str, ...] = ()

    def files(self, part: Part) -> Labelled:
        """Return one part's files."""
        return {"train": self.train, "validation": self.validation, "test": self.test}[part]

    @property
    def names(self) -> list[str]:
        """All file paths, relative to the folder: train, validation, test."""
        return [name for part in (self.train, self.validation, self.test) for name, _ in part]


def is_hidden(name: str) -> bool:
    """Check whether a file or folder is ignored by name (`.ipynb_checkpoints`, `@eaDir`, `Thumbs.db`)."""
    return name.startswith(".") or name.lower() in _LEFT_BY_SYSTEMS


def is_image_name(name: str) -> bool:
    """Check whether a file name has an image suffix."""
    return os.path.splitext(name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122 - a million names


def _is_text(name: str, *, besides: Sequence[str] = ()) -> bool:
    """Check for valid Unicode without control characters. `besides` lists Unicode categories to allow."""
    return not any(unicodedata.category(letter) in {"Cs", "Cc"} - {*besides} for letter in name)


def shown(name: object) -> str:
    """Return a printable path: non-UTF-8 bytes and line breaks are escaped."""
    return str(name).encode("utf-8", "backslashreplace").decode().replace("\n", "\\n").replace("\r", "\\r")


@functools.lru_cache(maxsize=8)
def list_image_folder(path: Path) -> ImageFolder:
    """List the images of `path/train/CLASS/*` with optional `path/val` and `path/test`, or of a plain `path/CLASS/*`.

    `train`, `val` (or `valid`, `validation`) and `test` are matched in any case. If all three exist, `val` is the
    validation part. If only one of `val` and `test` exists, it is the test part, as in ImageNet.

    Raises:
        ValueError: a folder or class is missing, empty or ambiguous. The message names it.
    """
    if not _is_text(str(path), besides=["Cc"]):  # plans and journals are UTF-8
        raise ValueError(f"{shown(path)} is not valid UTF-8: rename the folder, or give a link with another name")
    try:
        there = path.is_dir()
    except OSError as error:  # an unreadable parent folder, or too long a name
        raise _cannot_be_listed(path, error) from None
    if not there:
        raise ValueError(_no_folder(path))
    folders = _sub_folders(path)
    parts: dict[Part, str] = {}
    for name in folders:
        if (part := _PART_NAMES.get(name.lower())) is None:
            continue
        if part in parts:
            raise ValueError(
                f"{shown(path)}: {parts[part]}/ and {name}/ both name the {part} part: keep one, or merge them"
            )
        parts[part] = name
    if "train" in parts and _has_images_below(path / parts["train"]):
        return _list_parts(path, folders, parts)
    _refuse_parts_without_classes(path, folders, parts)
    return _list_plain(path, folders)


def _list_parts(path: Path, folders: Sequence[str], parts: dict[Part, str]) -> ImageFolder:
    """List a folder with `train/CLASS/*`."""
    train_folder = parts["train"]
    others = [name for name in folders if name not in parts.values() and _has_images(path / name)]
    labelled = [part for part, name in parts.items() if part != "train" and _has_images_below(path / name)]
    like_classes = [name for name in others if any(map(is_image_name, _entries(path / name)[1]))]
    if like_classes and not labelled:
        raise ValueError(
            f"{shown(path)}: is {train_folder}/ the training part, or a class like {_few(like_classes)}? If it is the "
            f"training part, move {_few(like_classes)} out of this folder; if it is a class, move its images out of "
            "its sub-folders"
        )
    notes = [f"{_few(others)} next to {train_folder}/ is ignored"] if others else []
    skipped: Counter[str] = Counter()
    classes = tuple(_sub_folders(path / train_folder))
    _check_classes(path / train_folder, classes)
    found: dict[Part, Labelled] = {"train": _list_classes(path, train_folder, classes, skipped)}
    outside = _count_outside(path / train_folder, skipped)
    for part in ("validation", "test"):
        if part not in parts:
            continue
        name = parts[part]
        outside += _count_outside(path / name, skipped)
        if part not in labelled:
            notes.append(f"{name}/ has no images in class folders and is ignored")
            continue
        strange = [
            each for each in _sub_folders(path / name) if each not in classes and _has_images(path / name / each)
        ]
        if strange:
            raise ValueError(
                f"{shown(path / name)}: classes missing from {shown(path / train_folder)}: {_few(strange)}. Every "
                "class needs training images: add them, or remove these folders"
            )
        found[part] = _list_classes(path, name, classes, skipped, all_of_them=False)
        present = {label for _, label in found[part]}
        if lacking := [each for label, each in enumerate(classes) if label not in present]:
            notes.append(f"{name}/ has no images of {_few(lacking)} ({len(lacking)} of {len(classes)} classes)")
    # A single labelled part besides train is the test part, regardless of the name.
    if "validation" in found and "test" not in found:
        found["test"] = found.pop("validation")
        parts = {**parts, "test": parts["validation"]}
    if "validation" in found:
        _check_validation(path, parts, classes, found)
    return ImageFolder(
        path,
        classes,
        train=found["train"],
        validation=found.get("validation", ()),
        test=found.get("test", ()),
        folders=tuple((part, parts[part]) for part in found),
        skipped=tuple(skipped.most_common()),
        outside=outside,
        notes=tuple(notes),
    )


def _check_validation(
    path: Path, parts: Mapping[Part, str], classes: Sequence[str], found: Mapping[Part, Labelled]
) -> None:
    """Check that the validation part has an image of every class with two or more training images."""
    sizes, present = Counter(label for _, label in found["train"]), {label for _, label in found["validation"]}
    if lacking := [name for label, name in enumerate(classes) if label not in present and sizes[label] > 1]:
        place = shown(path / parts["validation"])
        raise ValueError(
            f"{place}: no image of {_few(lacking)} ({len(lacking)} of {len(classes)} classes). Every class with "
            f"two or more images needs a validation image: move some images of the class there; or move {place} "
            f"elsewhere to validate on a tenth of {parts['train']}/"
        )


def _list_plain(path: Path, folders: Sequence[str]) -> ImageFolder:
    """List a folder with `CLASS/*`."""
    if len(folders) == 1 and len(_sub_folders(path / folders[0])) > 1:
        inner = path / folders[0]
        raise ValueError(f"{shown(path)}: 1 class folder; at least 2 are needed. Did you mean {shown(inner)}?")
    if not folders:
        raise ValueError(_no_folder(path))
    _check_classes(path, folders)
    for name in folders:
        inner_parts = {_PART_NAMES.get(each.lower()) for each in _sub_folders(path / name)} - {None}
        if "train" in inner_parts and len(inner_parts) > 1:
            raise ValueError(
                f"{shown(path / name)} is itself split into train and test: give it as the dataset, or put the "
                f"classes into {shown(path)}/train/ and {shown(path)}/test/"
            )
    _refuse_parts_of_other_names(path, folders)
    skipped: Counter[str] = Counter()
    train = _list_classes(path, "", folders, skipped)
    outside = _count_outside(path, skipped)
    notes = [f"{name}/ is read as a class" for name in folders if name.lower() in _PART_NAMES]
    return ImageFolder(
        path,
        tuple(folders),
        train=train,
        test=(),
        skipped=tuple(skipped.most_common()),
        outside=outside,
        notes=tuple(notes),
    )


def _refuse_parts_without_classes(path: Path, folders: Sequence[str], parts: dict[Part, str]) -> None:
    """Raise an error if part folders would be read as classes named `train` and `test`."""
    named = [name for name in parts.values() if _has_images(path / name)]
    below = [name for name in named if _has_images_below(path / name)]
    if len(named) > 1 or below or (named and len(folders) == 1):
        what = "has no training part" if below else "has images outside class folders"
        raise ValueError(
            f"{shown(path)}: {_few(named)} {what}: an image folder needs images in {shown(path)}/train/CLASS/, "
            "and there is no such folder"
        )
    if "train" in parts and not named and set(folders) <= set(parts.values()):
        classes = _sub_folders(path / parts["train"])
        _check_classes(path / parts["train"], classes)
        raise ValueError(_no_image(path / parts["train"] / classes[0]))


def _refuse_parts_of_other_names(path: Path, folders: Sequence[str]) -> None:
    """Raise an error if training_set/CLASS and test_set/CLASS would be read as two classes."""
    named = {name: found[1] for name in folders if (found := _LIKE_PART.search(name.lower()))}
    parts = [name for name in named if not any(map(is_image_name, _entries(path / name)[1]))]
    kinds = {named[name] for name in parts if _has_images_below(path / name)}
    if "train" in kinds and len(kinds) > 1:
        raise ValueError(
            f"{shown(path)}: are {_few(parts)} the parts of a dataset? Name them train/, val/ and test/. If they are "
            "classes, move their images out of their sub-folders"
        )


def _no_folder(path: Path) -> str:
    place = shown(path)
    return (
        f"{place}: an image folder needs images in {place}/CLASS/ or {place}/train/CLASS/, and there is no such folder"
    )


def _check_classes(folder: Path, classes: Sequence[str]) -> None:
    if len(classes) < 2:
        raise ValueError(f"{shown(folder)}: {counted(len(classes), 'class folder')}; at least 2 are needed")
    if unprintable := [name for name in classes if not _is_text(name)]:
        raise ValueError(
            f"{shown(folder)}: class names that are not valid UTF-8, or contain line breaks or other control "
            f"characters: {_few(unprintable)}. Rename these folders"
        )


def _list_classes(
    path: Path, part: str, classes: Sequence[str], skipped: Counter[str], *, all_of_them: bool = True
) -> Labelled:
    files: list[tuple[str, int]] = []
    for label, name in enumerate(classes):
        relative = f"{part}/{name}" if part else name
        before = len(files)
        if all_of_them or (path / relative).is_dir():
            files += [(each, label) for each in _images_of_class(path, relative, skipped)]
        if all_of_them and len(files) == before:
            raise ValueError(_no_image(path / relative))
    return tuple(files)


def _no_image(folder: Path) -> str:
    return f"{shown(folder)}: contains no images ({', '.join(IMAGE_SUFFIXES)}); remove the class or add images"


def _images_of_class(path: Path, relative: str, skipped: Counter[str]) -> list[str]:
    """List the images below a class folder, ordered as in torchvision's `ImageFolder`: by folder, then by name."""
    by_folder: list[tuple[str, list[str]]] = []
    for folder, names in _walk(path, relative):
        images = [name for name in names if is_image_name(name)]
        by_folder.append((folder, images))
        if len(images) < len(names):
            skipped.update(_suffix(name) for name in names if not is_image_name(name))
    return [f"{folder}/{name}" for folder, names in sorted(by_folder) for name in sorted(names)]


def _walk(
    path: Path, relative: str, above: frozenset[tuple[int, int]] | None = None
) -> Iterator[tuple[str, list[str]]]:
    """Yield every visible folder from `relative` downwards, with the names of the visible files in it.

    Links to folders are followed, except links to the current folder or an ancestor.
    """
    here = _identity(path / relative)
    if above is None:
        above = frozenset(map(_identity, (path / relative).resolve().parents))
    if here in above:
        return
    folders, files = _entries(path / relative)
    yield relative, files
    for name in folders:
        yield from _walk(path, f"{relative}/{name}", above | {here})


def _identity(folder: Path) -> tuple[int, int]:
    try:
        status = folder.stat()
    except OSError as error:
        raise _cannot_be_listed(folder, error) from None
    return status.st_dev, status.st_ino


def _entries(folder: Path) -> tuple[list[str], list[str]]:
    """Return the names of visible folders (sorted) and visible files in a folder."""
    folders: list[str] = []
    files: list[str] = []
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                if is_hidden(entry.name):
                    continue
                is_folder = False
                with suppress(OSError):  # a link to itself is not a folder
                    is_folder = entry.is_dir()
                (folders if is_folder else files).append(entry.name)
    except OSError as error:
        raise _cannot_be_listed(folder, error) from None
    return sorted(folders), files


def _cannot_be_listed(folder: Path, error: OSError) -> ValueError:
    return ValueError(f"{shown(folder)} cannot be listed ({error.strerror}): make it readable or remove it")


def _sub_folders(folder: Path) -> list[str]:
    return _entries(folder)[0]


def _has_images(folder: Path) -> bool:
    return any(is_image_name(name) for _, names in _walk(folder.parent, folder.name) for name in names)


def _has_images_below(folder: Path) -> bool:
    return any(_has_images(folder / name) for name in _sub_folders(folder))


def _count_outside(folder: Path, skipped: Counter[str]) -> int:
    """Count the images outside the class folders, and add other files there to `skipped`."""
    names = _entries(folder)[1]
    skipped.update(_suffix(name) for name in names if not is_image_name(name))
    return sum(map(is_image_name, names))


def _suffix(name: str) -> str:
    return shown(os.path.splitext(name)[1].lower()) or "no suffix"  # noqa: PTH122


def _few(names: Sequence[str]) -> str:
    """Join names with commas. Long lists are shortened to the first names."""
    listed = ", ".join(shown(name) for name in names[:_NAMED])
    return listed + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")
