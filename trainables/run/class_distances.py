"""Distances between classes, measured on the teacher's logits for the train split."""

from collections.abc import Callable
from math import isqrt
from typing import Final

import torch
from torch import Tensor

from trainables.losses.transport import alignment_of_kernels, centred_kernel

# Classes with fewer samples count as unrelated: a few centred samples align with any others.
FEWEST_SAMPLES: Final = 8
# Largest number of values in the kernels of all classes: 64 MiB, and 409 samples for each of 100 classes.
_MOST_NUMBERS: Final = 1 << 24
_AT_ONCE: Final = 512


@torch.no_grad()
def measure_class_distances(labels: Tensor, num_classes: int, logits_of: Callable[[Tensor], Tensor]) -> Tensor:
    """Compute 1 - linear CKA between the teacher's logits for each pair of classes.

    All classes take part with the same number of samples: the size of the smallest class, limited by memory. A class
    with fewer than `FEWEST_SAMPLES` samples has distance 1 to all others. Without the logits, this took 0.2 s with 100
    classes and 1 s with 1,000 on one core.

    Args:
        labels: (N,) int64, train labels.
        num_classes: C.
        logits_of: returns the teacher's logits (B, C) for rows (B,) in the train split.

    Returns:
        (C, C) float32 in [0, 1], symmetric with zeros on the diagonal, on the logits' device.

    Source:
        Lv, Yang and Li (2024), with CKA of logits as in the ImageNet settings of the authors' code. For CIFAR-100,
        their code takes each position of the last feature maps as a sample, which stored outputs do not have. It
        takes unaugmented images; ours are in the views of slot 0, the only ones that are certainly stored.
    """
    rows, known = _rows_by_class(labels, num_classes)
    distances = torch.ones(num_classes, num_classes)
    if len(known):
        # The logits of all classes together could be many times as large as the kernels.
        logits = (torch.cat([logits_of(some) for some in own.split(_AT_ONCE)]) for own in rows)
        kernels = torch.stack([centred_kernel(each.float()) for each in logits])
        distances = distances.to(kernels.device)
        known = known.to(kernels.device)
        distances[known[:, None], known] = (1 - alignment_of_kernels(kernels)).clamp(0, 1)
    return distances.fill_diagonal_(0)


def _rows_by_class(labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """Return each class's first rows (K, n), and these classes' labels, (K,)."""
    counts = labels.cpu().bincount(minlength=num_classes)
    known = (counts >= FEWEST_SAMPLES).nonzero().squeeze(1)
    if not len(known):
        return labels.new_empty(0, 0), known
    each = min(int(counts[known].min()), isqrt(_MOST_NUMBERS // len(known)))
    first = (counts.cumsum(0) - counts)[known]
    return labels.cpu().argsort(stable=True)[first[:, None] + torch.arange(each)], known
