"""Batches of samples of similar length, so that little of a batch is padding.

An epoch's samples are shuffled and dealt to buckets of 50 batches; each bucket is sorted by length and cut into
batches, and the batches of all buckets are shuffled. A single sample that is left over goes to the last bucket, and
there to the batch of the longest samples.
"""

from typing import Final

import torch
from torch import Tensor

from trainables.process.randomness import generator_from
from trainables.spec.batch_sizes import batch_sizes
from trainables.spec.trial import derive_seed

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
        Batches of the sizes that `batch_sizes` gives, in any order, each (B,) int64 of sample indices; every sample
        once.

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
    """All samples from the shortest to the longest, for whoever only asks: evaluation, and a teacher's outputs.

    Args:
        lengths: (N,) int64.
        batch_size: samples in each batch but the last.

    Returns:
        Batches of sample indices, each (B,) int64. `torch.cat` of them says whose an answer is.
    """
    return list(lengths.argsort(stable=True).split(batch_size))
