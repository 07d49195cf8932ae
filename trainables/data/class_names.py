"""Class names of published datasets, in label order. Imports no torch.

Sources: README of Fashion-MNIST; `batches.meta` and `fine_label_names.txt` of CIFAR.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trainables.spec.datasets import DatasetInfo

_LISTED: Final = 10


def with_class_names(info: "DatasetInfo", root: Path | None) -> "DatasetInfo":
    """Return the dataset info with class names, if the dataset's files contain them.

    Only Tiny ImageNet needs this step. Classes are numbered by sorted WordNet identifier, and `words.txt` adds the
    meaning of each identifier if the file exists.

    Args:
        info: the dataset.
        root: data root. If files are missing there, class names are left out.
    """
    if info.class_names or info.name != "tiny_imagenet":
        return info
    from trainables.data.sources import DataError, unpacked

    wnids = (info.find_files(root) or {}).get(info.files[0])
    if wnids is None:
        return info
    try:
        identifiers = sorted(unpacked(wnids).decode(errors="replace").split())
    except DataError:  # reading the images raises this error again
        return info
    meanings = dict(line.split("\t", 1) for line in _lines(wnids.with_name("words.txt")) if "\t" in line)
    return replace(info, class_names=tuple(f"{each} {meanings.get(each, '')}".strip() for each in identifiers))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def in_words(names: tuple[str, ...], *, most: int = _LISTED) -> str:
    """Join names with commas, or with semicolons if a name contains a comma. Long lists are shortened.

    Args:
        names: in label order.
        most: maximum number of listed entries. A longer list keeps the first names and the last.
    """
    listed = names if len(names) <= most else (*names[: most - 1], "...", names[-1])
    return ("; " if any("," in name for name in listed) else ", ").join(listed)
