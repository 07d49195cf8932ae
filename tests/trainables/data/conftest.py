"""Small datasets in the real formats."""

import gzip
import io
import lzma
import pickle
import struct
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import numpy as np
import pytest
import torch
from torch import Tensor
from torchvision.io import write_jpeg, write_png

from trainables.data.image_folder import list_image_folder
from trainables.spec.datasets import DATASETS, DatasetInfo

TRAIN, VALIDATION, TEST = 30, 10, 20
PACK: dict[str, Callable[[bytes], bytes]] = {"": bytes, ".gz": gzip.compress, ".xz": lzma.compress}


@pytest.fixture(autouse=True)
def own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Use a separate cache of decoded data for each test."""
    folder = tmp_path_factory.mktemp("cache")
    monkeypatch.setenv("PESFKD_CACHE", str(folder))
    return folder


@pytest.fixture(autouse=True)
def fresh_listings() -> None:
    list_image_folder.cache_clear()


@pytest.fixture
def shrink(monkeypatch: pytest.MonkeyPatch) -> Callable[..., DatasetInfo]:
    """Return a function that gives a dataset of the registry the split sizes of these tests."""

    def apply(name: str, **changes: object) -> DatasetInfo:
        info = replace(DATASETS[name], split_sizes=(TRAIN, VALIDATION, TEST), **changes)
        monkeypatch.setitem(DATASETS, name, info)
        return info

    return apply


def samples(info: DatasetInfo, count: int, *, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return random images (N, C, H, W) and labels with nearly equal class counts."""
    random = np.random.default_rng(seed)
    images = random.integers(256, size=(count, info.channels, info.image_size, info.image_size), dtype=np.uint8)
    return images, random.permutation(np.arange(count) % min(info.num_classes, 5))


def write(path: Path, content: bytes, packing: str = "") -> None:
    path = path.with_name(path.name + packing)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(PACK[packing](content))


def write_idx(root: Path, info: DatasetInfo, packing: str = "") -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write a dataset in MNIST's format. Return images and labels by part."""
    parts = {}
    for part, count, names in (
        ("train", TRAIN + VALIDATION, info.files[:2]),
        ("test", TEST, info.files[2:]),
    ):
        images, labels = samples(info, count, seed=count)
        shape = (count, info.image_size, info.image_size)
        write(root / names[0], struct.pack(">4B3I", 0, 0, 8, 3, *shape) + images.tobytes(), packing)
        write(root / names[1], struct.pack(">4BI", 0, 0, 8, 1, count) + labels.astype(np.uint8).tobytes(), packing)
        parts[part] = images, labels
    return parts


def cifar_parts(info: DatasetInfo, batches: int) -> dict[str, list[tuple[np.ndarray, np.ndarray]]]:
    """Return the samples of a CIFAR dataset by part, in batches."""
    count = (TRAIN + VALIDATION) // batches
    train = [samples(info, count, seed=number) for number in range(batches)]
    return {"train": train, "test": [samples(info, TEST, seed=99)]}


class _Python2Pickler(pickle._Pickler):
    """Pickler that writes text and bytes as plain strings of Python 2, as in the published files."""

    dispatch: ClassVar = dict(pickle._Pickler.dispatch)

    def save_string(self, value: "str | bytes") -> None:
        content = value.encode("latin1") if isinstance(value, str) else value
        self.write(pickle.BINSTRING + struct.pack("<i", len(content)) + content)
        self.memoize(value)

    dispatch[str] = dispatch[bytes] = save_string


def pickled_by_python_2(content: object) -> bytes:
    file = io.BytesIO()
    _Python2Pickler(file, protocol=2).dump(content)
    return file.getvalue()


def write_cifar(
    root: Path, info: DatasetInfo, kind: str, packing: str = ""
) -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Write a CIFAR dataset in the `python` or `binary` version. Return images and labels by part."""
    names = info.layouts[0 if kind == "python" else 1]
    parts = cifar_parts(info, len(names) - 1)
    for name, (images, labels) in zip(names, [*parts["train"], *parts["test"]], strict=True):
        if kind == "binary":
            coarse = [np.zeros_like(labels)[:, None]] if info.name == "cifar100" else []
            rows = np.concatenate([*coarse, labels[:, None], images.reshape(len(images), -1)], axis=1)
            write(root / name, rows.astype(np.uint8).tobytes(), packing)
        else:
            key = "fine_labels" if info.name == "cifar100" else "labels"
            content = {"data": images.reshape(len(images), -1), key: labels.tolist(), "batch_label": "of a test"}
            write(root / name, pickled_by_python_2(content), packing)
    return {name: tuple(map(np.concatenate, zip(*part, strict=True))) for name, part in parts.items()}


def write_images(folder: Path, images: Tensor, *, kind: str = "png") -> None:
    """Write images (N, C, H, W) as files 000.png, 001.png, ..."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        path = str(folder / f"{number:03d}.{kind}")
        write_png(image, path) if kind == "png" else write_jpeg(image, path, quality=100)


def random_images(count: int, channels: int, *size: int, seed: int = 0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, (count, channels, *size), dtype=torch.uint8, generator=generator)
