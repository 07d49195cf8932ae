"""Networks as users write them, in files, and processes that do not know them yet."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from unittest import mock

from trainables.user_code import loading

# A network with two stages, dropout and a block of a neighbour file.
NET = '''
import torch
from torch import nn

from blocks import Block


class Net(nn.Module):
    def __init__(self, num_classes, in_channels):
        super().__init__()
        self.stem = nn.Conv2d(in_channels, 4, 3, padding=1)
        self.layer1 = Block(4, 8)
        self.layer2 = Block(8, 8)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(8, num_classes)
        self.stages = ["layer1", "layer2"]

    def forward(self, images):
        maps = self.layer2(self.layer1(torch.relu(self.stem(images))))
        return self.fc(self.dropout(maps.mean(dim=(2, 3))))


def make(num_classes, in_channels):
    return Net(num_classes, in_channels)


def plain(num_classes, in_channels):
    """Without stages."""
    return nn.Sequential(
        nn.Conv2d(in_channels, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(2), nn.Flatten(),
        nn.Linear(24, num_classes),
    )
'''
BLOCKS = """
from torch import nn


class Block(nn.Module):
    def __init__(self, given, own):
        super().__init__()
        self.conv = nn.Conv2d(given, own, 3, padding=1, stride=2, bias=False)
        self.norm = nn.BatchNorm2d(own)

    def forward(self, maps):
        return self.norm(self.conv(maps)).relu()
"""


def write(folder: Path, **files: str) -> Path:
    """Write files by their names without suffix, with `__in__` for a slash. Return the folder."""
    for name, text in files.items():
        path = folder / f"{name.replace('__in__', '/')}.py"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
    return folder


def write_net(folder: Path, net: str = NET, **others: str) -> Path:
    """Write `net.py` and, beside it, `blocks.py` and others by their names. Return the file of the network."""
    write(folder, net=net, blocks=BLOCKS, **others)
    return folder / "net.py"


@contextmanager
def new_process() -> Iterator[None]:
    """Within the block, no code of a user is known, as in a process that has just begun."""

    def private() -> list[str]:
        return [name for name in sys.modules if name.startswith("pesfkd_user_code_")]

    before = {name: sys.modules.pop(name) for name in private()}
    with mock.patch.object(loading, "_known", {}), mock.patch.object(loading, "_unusable", {}):
        try:
            yield
        finally:
            for name in private():
                del sys.modules[name]
            sys.modules.update(before)
