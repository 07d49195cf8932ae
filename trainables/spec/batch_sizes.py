"""Batch sizes in an epoch: one rule for images and text, and for single, packed and data-parallel trials.

Imports no torch, so plans can use it. A last batch with one sample must be avoided. BatchNorm cannot normalise a single
value, so training would fail for networks with one-position maps. Losses over pairs of samples would be zero or
undefined. A single left-over sample therefore joins the previous batch.
"""

from trainables.display.numbers import counted


def batch_sizes(samples: int, batch_size: int) -> list[int]:
    """Return an epoch's batch sizes, in order.

    All batches have `batch_size` samples, except the last one, which has the remaining samples. If a single sample
    remains, the last batch has `batch_size` + 1 samples instead: 65 samples in batches of 64 give one batch of 65, and
    129 samples give 64 + 65. Batches with one sample occur only if `batch_size` is 1.

    Args:
        samples: number of train samples.
        batch_size: the trial's batch size.

    Raises:
        ValueError: there are fewer than two samples.
    """
    if samples < 2:
        raise ValueError(
            f"the train split has {counted(samples, 'sample')}, and a training needs 2 or more: "
            "BatchNorm and losses that compare samples are not defined on one. Add training data."
        )
    full, left_over = divmod(samples, batch_size)
    sizes = [batch_size] * full + [left_over] * bool(left_over)
    if leaves_one_over(samples, batch_size):
        sizes[-2:] = [batch_size + 1]
    return sizes


def leaves_one_over(samples: int, batch_size: int) -> bool:
    """Return whether a single left-over sample joins the last batch."""
    return batch_size > 1 and samples > 1 and samples % batch_size == 1


def largest_batch(samples: int, batch_size: int) -> int:
    """Return the largest possible batch: `batch_size`, or one more."""
    return batch_size + leaves_one_over(samples, batch_size)


def count_batches(samples: int, batch_size: int) -> int:
    """Return the number of batches in an epoch: ⌈samples / batch_size⌉, or one less if a single sample is left over."""
    return -(-samples // batch_size) - leaves_one_over(samples, batch_size)
