"""Datasets as users write them, in files, and processes that do not know them yet."""

from collections.abc import Iterator
from contextlib import contextmanager

from tests.user_nets import new_process
from trainables.data.own.opened import forget_own

# Digits as torch datasets, with a test part and a class names' list.
DATA = '''
import random

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch.utils.data import Dataset, TensorDataset

from columns import images_of


class Digits(Dataset):
    """PIL images with labels."""

    def __init__(self, first, last, transform=None):
        source = load_digits()
        self.images, self.labels = images_of(source)[first:last], source.target[first:last]
        self.transform = transform

    def __len__(self):
        return len(self.labels)

    def __getitem__(self, index):
        from PIL import Image

        image = Image.fromarray(self.images[index])
        return (image if self.transform is None else self.transform(image)), int(self.labels[index])


def make():
    return {"train": Digits(0, 200), "test": Digits(200, 260), "views": "crop", "class_names": list("abcdefghij")}


def arrays():
    d = Digits(0, 260)
    return (d.images[:200], d.labels[:200]), (d.images[200:], d.labels[200:])


def tensors():
    d = Digits(0, 260)
    images = torch.from_numpy(d.images).float()[:, None] / 255
    labels = torch.from_numpy(d.labels)
    return TensorDataset(images[:200], labels[:200]), TensorDataset(images[200:], labels[200:])


def keras():
    d = Digits(0, 260)
    return {"x_train": d.images[:200], "y_train": d.labels[:200], "x_test": d.images[200:], "y_test": d.labels[200:]}


def augment(image):
    """Random noise of all three generators, and a shift."""
    noise = torch.rand(image.shape) * 20 + np.random.rand() * 20 + random.random() * 20
    return (image.float() + noise).clamp(max=255).to(torch.uint8).roll(int(torch.randint(3, ())), dims=-1)


def augmented():
    return {"train": Digits(0, 200), "test": Digits(200, 260), "augment": augment, "views": 5}


def flips():
    from torchvision.transforms import v2

    jitter = v2.Compose([v2.PILToTensor(), v2.RandomHorizontalFlip()])
    return Digits(0, 200, jitter), Digits(200, 260)


def drawn():
    keep = np.random.default_rng().permutation(260)
    d = Digits(0, 260)
    return {"train": (d.images[keep[:200]], d.labels[keep[:200]])}


OWN, GLOBAL = np.random.default_rng().permutation(260), np.random.permutation(260)


def drawn_at_import():
    d = Digits(0, 260)
    return {"train": (d.images[OWN[:200]], d.labels[OWN[:200]])}


def seeded_at_import():
    d = Digits(0, 260)
    return {"train": (d.images[GLOBAL[:200]], d.labels[GLOBAL[:200]])}


def seeded():
    keep = torch.randperm(260).numpy()
    d = Digits(0, 260)
    return {"train": (d.images[keep[:200]], d.labels[keep[:200]])}
'''
COLUMNS = """
def images_of(source):
    return (source.images * 15).astype("uint8")
"""


@contextmanager
def new_data_process() -> Iterator[None]:
    """Within the block, no code and no dataset of a user is known, as in a process that has just begun."""
    forget_own()
    with new_process():
        yield
    forget_own()
