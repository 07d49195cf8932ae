"""Augmented views by user code: a finite number per image, each with separate random numbers.

View v of image i is the result of the user's function with the global generators seeded by (i, v). The view is thus the
same in every trial and process, and teacher outputs can be stored. View 0 is the unchanged image.
"""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import torch
from torch import Tensor

from trainables.data.views import ComputeViews, own_views_of
from trainables.spec.trial import derive_seed
from trainables.user_code.errors import UserCodeError
from trainables.user_code.loading import describe
from trainables.user_code.reference import canonical

if TYPE_CHECKING:
    from trainables.spec.datasets import DatasetInfo

_LARGEST_SEED: Final = 2**32  # of NumPy's global generator
_TRIED: Final = 16  # images


def views_by(augment: Callable[[Any], Any], name: str) -> ComputeViews:
    """Return the function that computes views by the user's code.

    Args:
        augment: user's function, returning a random view of an image.
        name: canonical dataset name.
    """

    def compute(images: Tensor, rows: list[int], views: list[int]) -> Tensor:
        with _kept_generators():
            each = [_view(augment, *place, name) for place in zip(images, rows, views, strict=True)]
        return torch.stack(each)

    return compute


def check_views(name: str, info: "DatasetInfo", images: Tensor) -> None:
    """Try the user's function on some training images, twice.

    Args:
        name: canonical dataset name.
        info: the dataset.
        images: (N, C, H, W) uint8, stored training images.

    Raises:
        UserCodeError: the function fails, returns no image of the same kind, or returns other views in the second call.
    """
    if not info.own_views:
        return
    edge = (images.shape[-1] - info.image_size) // 2
    inner = slice(edge, edge + info.image_size)
    rows = np.unique(np.linspace(0, len(images) - 1, _TRIED).astype(int)).tolist()
    views = [1 + place % (info.own_views - 1) for place in range(len(rows))]
    first, second = (own_views_of(name)(images[rows][..., inner, inner], rows, views) for _ in range(2))
    if not torch.equal(first, second):
        raise UserCodeError(
            f"{_title(name)}: augment returns different views when it is called again with equally seeded generators: "
            "draw from the global generators of torch, NumPy or random, which are seeded before each call"
        )


def _view(augment: Callable[[Any], Any], image: Tensor, row: int, view: int, name: str) -> Tensor:
    seed = derive_seed("own view", row, view)
    torch.default_generator.manual_seed(seed)
    np.random.seed(seed % _LARGEST_SEED)  # noqa: NPY002
    random.seed(seed)
    try:
        found = augment(image.clone())
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # user code may call sys.exit
        raise UserCodeError(f"{_title(name)}: augment failed:\n{describe(error)}") from None
    if not isinstance(found, Tensor) or found.dtype != torch.uint8 or found.shape != image.shape:
        kind = f"{found.dtype} {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
        raise UserCodeError(
            f"{_title(name)}: augment returns {kind}; it gets a tensor torch.uint8 {tuple(image.shape)} and "
            "returns one alike"
        )
    return found


@contextmanager
def _kept_generators() -> Iterator[None]:
    """Restore the global generators after the block."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    try:
        with torch.random.fork_rng(devices=[]):
            yield
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002


def _title(name: str) -> str:
    own = canonical(name)
    return f"{own.title}:{own.name}"
