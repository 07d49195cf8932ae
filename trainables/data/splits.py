"""Class counts per split. Imports neither torch nor numpy, so checking a plan is fast.

Each class has a proportional share of every split, to within one sample. Every class keeps at least one training
sample. A class with two or more samples also keeps at least one validation sample. If proportional shares break this
rule, as few samples as possible are exchanged, and the split sizes stay the same.

This guarantee does not hold for a test split drawn from the same samples. A class of two samples has no test sample,
and a larger class may have none. A class of one sample is in the train split only.
"""

import math
from collections.abc import Sequence
from typing import Final

Sizes = tuple[int, int, int]

_MOST_NAMED: Final = 5
_SAMPLES_OF_A_POINT: Final = 100
_TRAIN, _VALIDATION, _TEST = range(3)


def class_shares(class_sizes: Sequence[int], sizes: Sizes, *, names: Sequence[str] = ()) -> list[Sizes]:
    """Compute the class counts of (train, validation, test).

    Args:
        class_sizes: samples per class, at least one.
        sizes: samples in (train, validation, test). The sum equals the sum of `class_sizes`.
        names: class names for the error message; numbers are used if not given.

    Returns:
        One triple per class.

    Raises:
        ValueError: the splits have too few samples for all classes. The message names the smallest classes.
    """
    train, validation, _ = sizes
    if train < len(class_sizes) or validation < sum(size > 1 for size in class_sizes):
        raise ValueError(_too_few_samples(class_sizes, sizes, names))
    left = list(class_sizes)
    shares = [[0, 0, 0] for _ in left]
    for split in (_TEST, _VALIDATION):
        for share, count in zip(shares, proportional(left, sizes[split]), strict=True):
            share[split] = count
        left = [size - sum(share) for size, share in zip(class_sizes, shares, strict=True)]
    for share, count in zip(shares, left, strict=True):
        share[_TRAIN] = count
    _keep_every_class(shares)
    return [(share[_TRAIN], share[_VALIDATION], share[_TEST]) for share in shares]


def small_validation(samples: int, what: str) -> str | None:
    """Return a warning if one validation sample is worth more than one point of accuracy, otherwise None.

    Args:
        samples: validation split size.
        what: noun for the samples: images or sentences.
    """
    if samples >= _SAMPLES_OF_A_POINT:
        return None
    return (
        f"The validation split has {samples} {what}: one of them is worth {100 / samples:.2g} points of "
        "accuracy, and configs are chosen by this accuracy. Small differences are not meaningful."
    )


def proportional(available: Sequence[int], size: int) -> list[int]:
    """Distribute `size` samples over classes in proportion to `available`, by the largest-remainder method."""
    factor = size / sum(available)
    exact = [count * factor for count in available]
    counts = [math.floor(each + 1e-9) for each in exact]
    largest_first = sorted(range(len(counts)), key=lambda place: counts[place] - exact[place])
    for place in largest_first[: size - sum(counts)]:
        counts[place] += 1
    return counts


def _keep_every_class(shares: list[list[int]]) -> None:
    """Exchange samples between classes until the rule of this module holds. The split sizes stay the same.

    The class with the most samples in a split gives a sample away. `class_shares` has checked the sizes, so this class
    can always spare one.
    """
    for share in shares:
        if share[_TRAIN] == 0:
            _exchange(shares, share, wanted=_TRAIN, given=_TEST if share[_TEST] else _VALIDATION)
    for share in shares:
        if share[_VALIDATION] == 0 and sum(share) > 1:
            _exchange(shares, share, wanted=_VALIDATION, given=_TRAIN if share[_TRAIN] > 1 else _TEST)


def _exchange(shares: list[list[int]], share: list[int], *, wanted: int, given: int) -> None:
    giver = max(shares, key=lambda each: each[wanted])
    assert giver[wanted] > 1, "the sizes were checked"
    for each, sign in ((share, 1), (giver, -1)):
        each[wanted] += sign
        each[given] -= sign


def _too_few_samples(class_sizes: Sequence[int], sizes: Sizes, names: Sequence[str]) -> str:
    smallest = sorted(range(len(class_sizes)), key=lambda place: class_sizes[place])
    listed = ", ".join(
        f"{names[place] if names else f'class {place}'} ({class_sizes[place]})" for place in smallest[:_MOST_NAMED]
    )
    return (
        f"{sum(class_sizes)} samples of {len(class_sizes)} classes are too few: every class needs a training sample "
        f"and, if it has two or more, a validation sample, and the splits have {max(sizes[_TRAIN], 0)} and "
        f"{sizes[_VALIDATION]} samples. Smallest classes: {listed}{', ...' if len(smallest) > _MOST_NAMED else ''}. "
        "Add samples to them, or remove them"
    )
