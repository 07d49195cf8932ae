"""How many samples of each class go to each split; imports neither torch nor numpy: a plan is checked by it.

A class has its share of every split, to within a sample. Every class keeps at least one training sample and, if it has
two or more, one validation sample: where shares would break that, as few samples as possible change sides, and the
splits keep their sizes. Nothing is promised of a test split that is drawn too: a class of two samples has none there,
and a larger class may have none. A class of one sample is in train alone.
"""

import math
from collections.abc import Sequence
from typing import Final

Sizes = tuple[int, int, int]

_MOST_NAMED: Final = 5
_SAMPLES_OF_A_POINT: Final = 100
_TRAIN, _VALIDATION, _TEST = range(3)


def class_shares(class_sizes: Sequence[int], sizes: Sizes, *, names: Sequence[str] = ()) -> list[Sizes]:
    """How many samples of each class go to (train, validation, test).

    Args:
        class_sizes: samples of each class, at least one.
        sizes: samples in (train, validation, test); they sum to those of all classes.
        names: names of the classes, for the error; if not given, they are numbered.

    Returns:
        One triple for each class.

    Raises:
        ValueError: naming the smallest classes, if the splits have too few samples for all classes.
    """
    train, validation, _ = sizes
    if train < len(class_sizes) or validation < sum(size > 1 for size in class_sizes):
        raise ValueError(_refused(class_sizes, sizes, names))
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
    """The warning that single samples decide on scores; None if one sample is worth a point of accuracy or less.

    Args:
        samples: of the validation split.
        what: they are called: images or sentences.
    """
    if samples >= _SAMPLES_OF_A_POINT:
        return None
    return (
        f"The validation split has {samples} {what}: one of them is worth {100 / samples:.2g} points of accuracy, and "
        "configs are chosen by it. Small differences mean nothing there."
    )


def proportional(available: Sequence[int], size: int) -> list[int]:
    """`size` samples shared out over classes in proportion to `available`, by the largest remainders."""
    factor = size / sum(available)
    exact = [count * factor for count in available]
    counts = [math.floor(each + 1e-9) for each in exact]
    largest_first = sorted(range(len(counts)), key=lambda place: counts[place] - exact[place])
    for place in largest_first[: size - sum(counts)]:
        counts[place] += 1
    return counts


def _keep_every_class(shares: list[list[int]]) -> None:
    """Exchange samples between classes until the rule holds; the sums of the splits stay.

    The giver is the class with the most samples in the split. There always is one that can spare a sample, as
    `class_shares` checked the sizes.
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


def _refused(class_sizes: Sequence[int], sizes: Sizes, names: Sequence[str]) -> str:
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
