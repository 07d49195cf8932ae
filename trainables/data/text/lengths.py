"""Batches of samples of similar length, so that little of a batch is padding.

An epoch's samples are shuffled and dealt to buckets of 50 batches; each bucket is sorted by length and cut into
batches, and the batches of all buckets are shuffled.
"""

from typing import Final

import torch
from torch import Tensor

from trainables.randomness import generator_from
from trainables.trial import derive_seed

BATCHES_PER_BUCKET: Final = 50


def length_bucketed_batches(lengths: Tensor, *, batch_size: int, data_seed: int, epoch: int) -> list[Tensor]:
    """The batches of an epoch.

    They are drawn afresh from (data_seed, epoch), so that an epoch needs no state of the one before it.

    Args:
        lengths: (N,) int64, tokens of each sample.
        batch_size: samples in each batch, but in the one that holds what is left over.
        data_seed: draws them.
        epoch: counted from 0.

    Returns:
        ⌈N / batch_size⌉ batches, each (B,) int64 of sample indices; every sample once.
    """
    random = generator_from(derive_seed("batches by length", data_seed, epoch))
    batches: list[Tensor] = []
    for bucket in torch.randperm(len(lengths), generator=random).split(BATCHES_PER_BUCKET * batch_size):
        batches += bucket[lengths[bucket].argsort(stable=True)].split(batch_size)
    return [batches[number] for number in torch.randperm(len(batches), generator=random).tolist()]


def batches_sorted_by_length(lengths: Tensor, *, batch_size: int) -> list[Tensor]:
    """All samples from the shortest to the longest, for whoever only asks: evaluation, and a teacher's outputs.

    Args:
        lengths: (N,) int64.
        batch_size: samples in each batch but the last.

    Returns:
        Batches of sample indices, each (B,) int64. `torch.cat` of them says whose an answer is.
    """
    return list(lengths.argsort(stable=True).split(batch_size))
