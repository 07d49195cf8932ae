"""Names of the classes of published datasets, in the order of their labels; imports no torch.

Sources: `Fashion-MNIST`'s README for its names, CIFAR's `batches.meta` and `fine_label_names.txt` for theirs.
"""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from trainables.spec.datasets import DatasetInfo

_LISTED: Final = 10


def with_class_names(info: "DatasetInfo", root: Path | None) -> "DatasetInfo":
    """The dataset with the names of its classes, where its files tell them.

    Tiny ImageNet is numbered by its sorted WordNet identifiers; `words.txt` adds what they mean, if it is there.

    Args:
        info: the dataset.
        root: the data root; files that are missing there leave the names out.
    """
    if info.class_names or info.name != "tiny_imagenet":
        return info
    from trainables.data.sources import DataError, unpacked

    wnids = (info.find_files(root) or {}).get(info.files[0])
    if wnids is None:
        return info
    try:
        identifiers = sorted(unpacked(wnids).decode(errors="replace").split())
    except DataError:  # whoever reads the images refuses it
        return info
    meanings = dict(line.split("\t", 1) for line in _lines(wnids.with_name("words.txt")) if "\t" in line)
    return replace(info, class_names=tuple(f"{each} {meanings.get(each, '')}".strip() for each in identifiers))


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return []


def in_words(names: tuple[str, ...], *, most: int = _LISTED) -> str:
    """The names with commas between, or semicolons if a name has a comma; of many, the first ones and the last.

    Args:
        names: in the order of the labels.
        most: how many are listed.
    """
    listed = names if len(names) <= most else (*names[: most - 1], "...", names[-1])
    return ("; " if any("," in name for name in listed) else ", ").join(listed)
