"""How many samples each batch of an epoch has: one rule for images and text, for lone, packed and shared trials.

It imports no torch, so that a plan can ask it.

BatchNorm cannot normalise a single value: a last batch of one sample ends a training whose maps have shrunk to one
position, and losses that relate samples to each other are zero or not defined on it. So one sample that is left over
joins the batch before it.
"""


def batch_sizes(samples: int, batch_size: int) -> list[int]:
    """The sizes of an epoch's batches, in order.

    All have `batch_size` samples but the last, which has what is left over. Where that would be a single sample, the
    last batch has `batch_size` + 1 instead: 65 samples in batches of 64 are one batch of 65, and 129 are 64 + 65.
    Batches of one sample are made only where `batch_size` is 1.

    Args:
        samples: of the train split.
        batch_size: as the trial has it.

    Raises:
        ValueError: there are fewer than two samples.
    """
    if samples < 2:
        raise ValueError(
            f"the train split has {samples} sample{'s' if samples != 1 else ''}, and a training needs 2 or more: "
            "BatchNorm and losses that compare samples are not defined on one. Add training data."
        )
    full, left_over = divmod(samples, batch_size)
    sizes = [batch_size] * full + [left_over] * bool(left_over)
    if leaves_one_over(samples, batch_size):
        sizes[-2:] = [batch_size + 1]
    return sizes


def leaves_one_over(samples: int, batch_size: int) -> bool:
    """Whether the last batch takes in one sample that is left over."""
    return batch_size > 1 and samples > 1 and samples % batch_size == 1


def largest_batch(samples: int, batch_size: int) -> int:
    """Most samples that a batch may have: `batch_size`, or one more."""
    return batch_size + leaves_one_over(samples, batch_size)


def count_batches(samples: int, batch_size: int) -> int:
    """Batches in an epoch; ⌈samples / batch_size⌉ unless one sample is left over."""
    return -(-samples // batch_size) - leaves_one_over(samples, batch_size)
