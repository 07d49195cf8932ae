"""Throughput of our batches relative to torchvision's transforms in PyTorch's DataLoader, in images per second.

All loaders produce the same kind of mini-batches of 64 from uint8 images in memory: shuffled, randomly cropped after
padding, randomly mirrored if the dataset's augmentation includes it, and normalised to float32. Everything runs in one
process on one thread without workers. The loaders take turns. A ratio is the median over rounds of the ratio within a
round, in process time. `tensor` is a DataLoader over tensors. `pil` is a DataLoader over PIL images, as returned by
torchvision's own datasets.

    python benchmarks/loader.py [--quick] [--rounds N] [--json PATH]
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset
from torchvision.transforms import v2
from torchvision.transforms.functional import to_pil_image

from trainables.data.views import Normaliser, ViewedImages, crop_views
from trainables.process.threads import use_one_thread

BATCH = 64
WARM_UP = 1
MEAN, STD = 0.5, 0.25


class Shape(NamedTuple):
    """Dataset image shape and augmentation."""

    name: str
    channels: int
    size: int
    padding: int
    mirror: bool


SHAPES = (Shape("cifar", 3, 32, 4, True), Shape("28x28", 1, 28, 2, True))


class _Samples(TorchDataset):
    def __init__(self, images: list, labels: Tensor, transform: Callable) -> None:
        self._images, self._labels, self._transform = images, labels.tolist(), transform

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        return self._transform(self._images[index]), self._labels[index]


def our_batches(shape: Shape, images: Tensor, labels: Tensor) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield mini-batches without end, in the same way as a trial."""
    table = crop_views(shape.padding, mirror=shape.mirror)
    viewed = ViewedImages(images, table)
    normalise = Normaliser([MEAN] * shape.channels, [STD] * shape.channels, images.device)
    while True:
        views = torch.randint(len(table), (len(images),))
        for indices in torch.randperm(len(images)).split(BATCH):
            yield normalise(viewed.batch(indices, views[indices])), labels[indices]


def torchvision_batches(shape: Shape, images: Tensor, labels: Tensor, *, pil: bool) -> Iterator[tuple[Tensor, Tensor]]:
    """Yield mini-batches without end, from a DataLoader with torchvision's transforms per sample."""
    transform = v2.Compose(
        [
            v2.RandomCrop(shape.size, padding=shape.padding),
            *([v2.RandomHorizontalFlip()] if shape.mirror else []),
            *([v2.PILToTensor()] if pil else []),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize([MEAN] * shape.channels, [STD] * shape.channels),
        ]
    )
    samples = [to_pil_image(image) for image in images] if pil else list(images)
    loader = DataLoader(_Samples(samples, labels, transform), batch_size=BATCH, shuffle=True)
    while True:
        yield from loader


def measure(shape: Shape, samples: int, batches: int, rounds: int) -> list[dict]:
    """Return one row per torchvision loader, timed in turn with ours."""
    images = torch.randint(256, (samples, shape.channels, shape.size, shape.size), dtype=torch.uint8)
    labels = torch.randint(10, (samples,))
    load = os.getloadavg()[0]
    loaders = {
        "ours": our_batches(shape, images, labels),
        "tensor": torchvision_batches(shape, images, labels, pil=False),
        "pil": torchvision_batches(shape, images, labels, pil=True),
    }
    rates: dict[str, list[float]] = {name: [] for name in loaders}
    for number in range(WARM_UP + rounds):
        for name, loader in loaders.items():
            started = time.process_time()
            count = sum(len(batch) for batch, _ in islice(loader, batches * (10 if name == "ours" else 1)))
            if number >= WARM_UP:
                rates[name].append(count / (time.process_time() - started))
    return [
        {
            "images": shape.name,
            "against": name,
            "ratio": statistics.median(a / b for a, b in zip(rates["ours"], rates[name], strict=True)),
            "images_per_second": statistics.median(rates["ours"]),
            "theirs_per_second": statistics.median(rates[name]),
            "n": rounds,
            "load": load,
        }
        for name in ("tensor", "pil")
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a few batches of few images")
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    use_one_thread()
    samples, batches, rounds = (256, 2, 2) if arguments.quick else (20_000, 10, arguments.rounds)
    rows = []
    print(f"{'images':8} {'against':8} {'ratio':>7} {'ours/s':>10} {'theirs/s':>10} {'n':>4} {'load':>5}")
    for shape in SHAPES:
        for row in measure(shape, samples, batches, rounds):
            print(
                f"{row['images']:8} {row['against']:8} {row['ratio']:7.1f} {row['images_per_second']:10.0f} "
                f"{row['theirs_per_second']:10.0f} {row['n']:4} {row['load']:5.1f}"
            )
            rows.append(row)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
