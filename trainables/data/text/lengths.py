"""Mini-batches with samples of similar length, which keeps padding small.

An epoch's samples are shuffled and divided into buckets of 50 batches. Each bucket is sorted by length and cut into
batches. Finally, all batches are shuffled. A single left-over sample joins the last bucket, in the batch with the
longest samples.
"""

from typing import Final

import torch
from torch import Tensor

from trainables.process.randomness import generator_from
from trainables.spec.batch_sizes import batch_sizes
from trainables.spec.trial import derive_seed

BATCHES_PER_BUCKET: Final = 50


def length_bucketed_batches(lengths: Tensor, *, batch_size: int, data_seed: int, epoch: int) -> list[Tensor]:
    """Draw an epoch's mini-batches.

    The batches depend only on (data_seed, epoch), so an epoch needs no state from earlier epochs.

    Args:
        lengths: (N,) int64, token count per sample.
        batch_size: samples per batch, except the batch with the remainder.
        data_seed: draws the batches.
        epoch: epoch number, counted from 0.

    Returns:
        Batches of sample indices, each (B,) int64, in random order. The sizes come from `batch_sizes`, and every sample
        occurs once.

    Raises:
        ValueError: there are fewer than two samples.
    """
    random = generator_from(derive_seed("batches by length", data_seed, epoch))
    sizes = batch_sizes(len(lengths), batch_size)
    groups = [sizes[first : first + BATCHES_PER_BUCKET] for first in range(0, len(sizes), BATCHES_PER_BUCKET)]
    batches: list[Tensor] = []
    shuffled = torch.randperm(len(lengths), generator=random)
    for bucket, group in zip(shuffled.split([sum(group) for group in groups]), groups, strict=True):
        batches += bucket[lengths[bucket].argsort(stable=True)].split(group)
    return [batches[number] for number in torch.randperm(len(batches), generator=random).tolist()]


def batches_sorted_by_length(lengths: Tensor, *, batch_size: int) -> list[Tensor]:
    """Return batches with all samples from shortest to longest, for forward passes without training.

    Args:
        lengths: (N,) int64.
        batch_size: samples per batch, except the last batch.

    Returns:
        Batches of sample indices, each (B,) int64. `torch.cat` of the batches gives the sample index of each output
        row.
    """
    return list(lengths.argsort(stable=True).split(batch_size))
