"""Published datasets by name: shape, splits and files. Imports no torch."""

import difflib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from trainables.spec.class_names import CIFAR10, CIFAR100, DIGITS, FASHION_MNIST
from trainables.spec.glue import GLUE_PREFIX, GLUE_TASKS, REGRESSION_TASKS, GlueTask, Metric, cached_by_hub
from trainables.spec.naming import unknown_name
from trainables.spec.own_data import ARRAYS_PREFIX, FORMS, HUB_PREFIX, absolute_files, is_own_data, parse_own_name
from trainables.user_code.reference import looks_like_reference

FOLDER_PREFIX: Final = "image_folder:"
# Accepted suffixes for compressed files.
PACKINGS: Final = ("", ".gz", ".xz")
_PREFIXES: Final = (FOLDER_PREFIX, GLUE_PREFIX, ARRAYS_PREFIX, HUB_PREFIX)
_MISTYPED: Final = 0.8  # similarity between a prefix and one on this list
_LISTED: Final = 4
RESIZED_CROPS: Final = 64


@dataclass(frozen=True)
class DatasetInfo:
    """Shape, splits and files of a dataset.

    Args:
        name: canonical name, as used in flags.
        num_classes: number of classes.
        channels: image channels.
        image_size: height and width in pixels.
        split_sizes: number of samples in (train, validation, test).
        padding: black border width in pixels. Augmented views are all crops of the padded image.
        mirrored: whether the mirror images of these crops are augmented views too.
        layouts: alternative file sets, relative to the data root. One set must exist, each file uncompressed or
            compressed (.gz, .xz). Empty for datasets from a library.
        source: dataset origin.
        download: whether torchvision can download it.
        resized_crops: number of random resized crops. They replace the padded crops as augmented views. Usual for
            photographs.
        task: text task, without image channels and size, and with a single view. None for images.
        class_names: class names, in label order. Empty if only the files contain them (see
            `trainables.data.class_names`).
        largest_pixel: largest possible pixel value; the smallest is 0.
        own_views: number of views computed by user code. They replace the crops as augmented views.
    """

    name: str
    num_classes: int
    channels: int
    image_size: int
    split_sizes: tuple[int, int, int]
    padding: int
    mirrored: bool
    layouts: tuple[tuple[str, ...], ...]
    source: str
    download: bool = False
    resized_crops: int = 0
    task: GlueTask | None = None
    class_names: tuple[str, ...] = ()
    largest_pixel: int = 255
    own_views: int = 0

    @property
    def num_views(self) -> int:
        """Number of augmented views per sample, including the unchanged one."""
        return self.own_views or self.resized_crops or (2 * self.padding + 1) ** 2 * (2 if self.mirrored else 1)

    @property
    def metrics(self) -> tuple[Metric, ...]:
        """Metrics for the predicted classes."""
        return ("accuracy",) if self.task is None else self.task.metrics

    @property
    def stored_size(self) -> int:
        """Height and width of stored training images: 256 for random resized crops of 224 pixels."""
        return round(self.image_size * 8 / 7) if self.resized_crops else self.image_size

    @property
    def files(self) -> tuple[str, ...]:
        """Files in the first layout."""
        return self.layouts[0] if self.layouts else ()

    def find_files(self, root: Path | None) -> dict[str, Path] | None:
        """Return the files in the first complete layout under `root` by name, or None if no layout is complete.

        GLUE files may also come from the local Hugging Face cache.
        """
        base = root if root is not None else Path()
        for layout in self.layouts:
            found = {name: self._find(base, name) for name in layout}
            if all(found.values()):
                return {name: path for name, path in found.items() if path is not None}
        return None if self.layouts else {}

    def missing_files(self, root: Path | None) -> list[str]:
        """Return the missing files, relative to `root`, in the most complete layout; empty if a layout is complete."""
        base = root if root is not None else Path()
        lacking = [[name for name in layout if self._find(base, name) is None] for layout in self.layouts]
        return min(lacking, key=len, default=[])

    def _find(self, base: Path, name: str) -> Path | None:
        return _find(base / name) or (cached_by_hub(name) if self.task is not None else None)


def _shortened(names: Sequence[object]) -> str:
    """Join the names with commas; long lists are cut to the first names and the last."""
    few = [*map(str, names)]
    return ", ".join(few if len(few) <= _LISTED else [*few[:2], "...", few[-1]])


def _find(path: Path) -> Path | None:
    packed = (path.with_name(path.name + packing) for packing in PACKINGS)
    return next((each for each in packed if each.exists()), None)


def _idx_files(folder: str) -> tuple[str, ...]:
    names = ("train-images-idx3", "train-labels-idx1", "t10k-images-idx3", "t10k-labels-idx1")
    return tuple(f"{folder}/raw/{name}-ubyte" for name in names)


_CIFAR10_BATCHES: Final = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
_CIFAR: Final = "Krizhevsky, Learning Multiple Layers of Features from Tiny Images (2009)"
DATASETS: Final[dict[str, DatasetInfo]] = {
    info.name: info
    for info in (
        DatasetInfo(
            name="digits",
            num_classes=10,
            channels=1,
            image_size=8,
            split_sizes=(1077, 360, 360),
            padding=1,
            mirrored=False,
            layouts=(),
            source="scikit-learn's load_digits (UCI optical recognition of handwritten digits, test part)",
            class_names=DIGITS,
            largest_pixel=240,  # ink counts from 0 to 16, times 15
        ),
        DatasetInfo(
            name="fashion_mnist",
            num_classes=10,
            channels=1,
            image_size=28,
            split_sizes=(55_000, 5_000, 10_000),
            padding=2,
            mirrored=True,
            layouts=(_idx_files("FashionMNIST"),),
            source="Xiao, Rasul and Vollgraf, Fashion-MNIST (2017)",
            download=True,
            class_names=FASHION_MNIST,
        ),
        DatasetInfo(
            name="mnist",
            num_classes=10,
            channels=1,
            image_size=28,
            split_sizes=(55_000, 5_000, 10_000),
            padding=2,
            mirrored=False,  # a mirrored digit is another symbol
            layouts=(_idx_files("MNIST"),),
            source="LeCun, Cortes and Burges, The MNIST database of handwritten digits",
            download=True,
            class_names=DIGITS,
        ),
        DatasetInfo(
            name="cifar10",
            num_classes=10,
            channels=3,
            image_size=32,
            split_sizes=(45_000, 5_000, 10_000),
            padding=4,
            mirrored=True,
            layouts=(
                tuple(f"cifar-10-batches-py/{name}" for name in _CIFAR10_BATCHES),
                tuple(f"cifar-10-batches-bin/{name}.bin" for name in _CIFAR10_BATCHES),
            ),
            source=_CIFAR,
            download=True,
            class_names=CIFAR10,
        ),
        DatasetInfo(
            name="cifar100",
            num_classes=100,
            channels=3,
            image_size=32,
            split_sizes=(45_000, 5_000, 10_000),
            padding=4,
            mirrored=True,
            layouts=(
                ("cifar-100-python/train", "cifar-100-python/test"),
                ("cifar-100-binary/train.bin", "cifar-100-binary/test.bin"),
            ),
            source=_CIFAR,
            download=True,
            class_names=CIFAR100,
        ),
        DatasetInfo(
            name="tiny_imagenet",
            num_classes=200,
            channels=3,
            image_size=64,
            split_sizes=(90_000, 10_000, 10_000),
            padding=8,
            mirrored=True,
            layouts=(
                (
                    "tiny-imagenet-200/wnids.txt",
                    "tiny-imagenet-200/train",
                    "tiny-imagenet-200/val/val_annotations.txt",
                    "tiny-imagenet-200/val/images",
                ),
            ),
            source="Stanford CS231n, Tiny ImageNet; its labelled validation part is the test split here",
        ),
        *(
            DatasetInfo(
                name=task.dataset,
                num_classes=len(task.labels),
                channels=0,
                image_size=0,
                split_sizes=task.split_sizes,
                padding=0,
                mirrored=False,
                layouts=task.layouts,
                source=f"GLUE's {task.title}, Wang et al. (2019); its labelled development part is the test split here",
                download=True,
                task=task,
                class_names=task.labels,
            )
            for task in GLUE_TASKS.values()
        ),
    )
}


def check_dataset_name(name: str) -> str:
    """Return `name` if it is a known dataset, or names an image folder or user dataset.

    Raises:
        ValueError: the name is unknown; the message gives the nearest known name.
    """
    if name.startswith(FOLDER_PREFIX) and name != FOLDER_PREFIX:
        return name
    if is_own_data(name):
        parse_own_name(name)
        return name
    if (meaning := REGRESSION_TASKS.get(name.removeprefix(GLUE_PREFIX))) and name.startswith(GLUE_PREFIX):
        raise ValueError(_refused_regression(name, meaning))
    if name not in DATASETS:
        raise ValueError(unknown_name("dataset", name, [*DATASETS, f"{FOLDER_PREFIX}PATH", *FORMS]))
    return name


def expand_home(name: str) -> str:
    """Return a dataset's name with `~` expanded, as in `image_folder:~/pets`, because shells do not expand it there.

    Array files get an absolute path.

    Raises:
        ValueError: the user's home in `~NAME` is unknown.
    """
    if not name.startswith(f"{FOLDER_PREFIX}~"):
        return absolute_files(name)
    try:
        return f"{FOLDER_PREFIX}{Path(name.removeprefix(FOLDER_PREFIX)).expanduser()}"
    except RuntimeError:
        raise ValueError(f"{name}: there is no such home; give the folder's whole path") from None


def is_code(name: str) -> bool:
    """Return whether a dataset's name means user code, as typed: `data.py:make`."""
    if name in DATASETS or name.startswith((FOLDER_PREFIX, GLUE_PREFIX)) or is_own_data(name):
        return False
    form = name.partition(":")[0].lower()
    if difflib.get_close_matches(form, [each[:-1] for each in _PREFIXES], cutoff=_MISTYPED):  # reported as unknown
        return False
    return looks_like_reference(name)


def _refused_regression(name: str, meaning: str) -> str:
    from trainables.spec.methods import METHOD_SPECS

    classified = ", ".join(known for known in DATASETS if known.startswith(GLUE_PREFIX))
    methods = ", ".join(METHOD_SPECS)
    return (
        f"dataset {name!r} is a regression: its labels are {meaning}, and every method here ({methods}) learns from "
        f"classes. Of GLUE there are {classified}"
    )


def largest_pixel(name: str) -> int:
    """Return a dataset's largest possible pixel value, without reading files; see `DatasetInfo`."""
    return DATASETS[name].largest_pixel if name in DATASETS else DatasetInfo.largest_pixel


def check_files(info: DatasetInfo, root: Path | None) -> None:
    """Check that a dataset's files exist.

    Raises:
        ValueError: files are missing; the message names the missing files and the remedy.
    """
    missing = info.missing_files(root)
    if not missing:
        return
    where = f"under {root}" if root is not None else "without a data root"
    others = [_shortened(layout) for layout in info.layouts if missing[0] not in layout]
    raise ValueError(
        f"dataset {info.name} is not complete {where}: {_shortened(missing)} "
        f"{'is' if len(missing) == 1 else 'are'} missing (each may be packed, as .gz or .xz"
        + "".join(f"; instead of them all, {other} would do" for other in others)
        + "). Pass the folder that holds them as --data-root or PESFKD_DATA_ROOT"
        + ("; or let --download fetch them there" if info.download else "")
        + f". Source: {info.source}"
    )
