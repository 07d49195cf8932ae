"""Every class keeps a training and a validation sample. Splits that already had both are unchanged."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from trainables.data.dataset import stratified_split
from trainables.data.splits import class_shares


def version_1_splits(labels, sizes, *, seed):
    """Return the splits of version 1: proportional, without reserved samples for rare classes."""
    random = np.random.default_rng(seed)
    pools = [random.permutation(np.flatnonzero(labels == label)) for label in np.unique(labels)]
    splits = []
    for size in reversed(sizes):
        available = np.array([len(pool) for pool in pools])
        exact = available * (size / available.sum())
        counts = np.floor(exact + 1e-9).astype(np.int64)
        counts[np.argsort(-(exact - counts), kind="stable")[: size - counts.sum()]] += 1
        splits.append(np.sort(np.concatenate([pool[:n] for pool, n in zip(pools, counts, strict=True)])))
        pools = [pool[n:] for pool, n in zip(pools, counts, strict=True)]
    return tuple(reversed(splits))


def keeps_every_class(labels, train, validation):
    present = np.bincount(labels)
    learnt, validated = (np.bincount(labels[rows], minlength=len(present)) for rows in (train, validation))
    return bool((learnt[present > 0] > 0).all() and (validated[present > 1] > 0).all())


@st.composite
def divided(draw):
    """Generate sizes of classes, many of them rare, and sizes of splits that can hold all classes."""
    class_sizes = draw(st.lists(st.one_of(st.integers(1, 4), st.integers(1, 120)), min_size=2, max_size=12))
    total, several = sum(class_sizes), sum(size > 1 for size in class_sizes)
    validation = draw(st.integers(max(several, 1), max(several, 1, total - len(class_sizes))))
    test = draw(st.integers(0, max(0, total - validation - len(class_sizes))))
    return class_sizes, (total - validation - test, validation, test)


@given(divided(), st.integers(0, 3))
def test_every_class_keeps_a_training_and_a_validation_sample_and_what_held_anyway_is_drawn_as_before(given, seed):
    class_sizes, sizes = given
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(class_sizes)), class_sizes))
    if sizes[0] < len(class_sizes):
        with pytest.raises(ValueError, match="too few"):
            stratified_split(labels, sizes, seed=seed)
        return
    splits = stratified_split(labels, sizes, seed=seed)
    assert tuple(map(len, splits)) == sizes
    assert sorted(np.concatenate(splits)) == list(range(len(labels)))
    assert keeps_every_class(labels, *splits[:2])
    before = version_1_splits(labels, sizes, seed=seed)
    if keeps_every_class(labels, *before[:2]):
        for rows, expected in zip(splits, before, strict=True):
            np.testing.assert_array_equal(rows, expected)
            assert rows.dtype == expected.dtype


@pytest.mark.parametrize(
    ("class_sizes", "sizes", "expected"),
    [
        # Nine classes of 101 images and one of two: a plain draw would put one of these in test and one in validation.
        ([101] * 9 + [2], (729, 91, 91), (1, 1, 0)),
        ([60, 2], (56, 6, 0), (1, 1, 0)),  # separate test part; a plain draw would put both in train
        ([60, 1], (55, 6, 0), (1, 0, 0)),  # the one image is for training
        ([1, 30], (25, 3, 3), (24, 3, 3)),
        ([2, 2], (2, 2, 0), (1, 1, 0)),
        ([20, 20, 3], (35, 4, 4), (2, 1, 0)),
    ],
)
def test_the_last_class_has_its_samples_where_they_are_needed(class_sizes, sizes, expected):
    shares = class_shares(class_sizes, sizes)
    assert shares[-1] == expected
    assert tuple(map(sum, zip(*shares, strict=True))) == sizes
    assert [sum(share) for share in shares] == class_sizes


@pytest.mark.parametrize(
    ("class_sizes", "sizes"),
    [([1, 1], (0, 2, 0)), ([2, 1], (-1, 2, 2)), ([5, 5, 1], (10, 1, 0))],
)
def test_splits_that_cannot_hold_every_class_are_refused_with_the_smallest_classes(class_sizes, sizes):
    names = ["cat", "dog", "owl"]
    with pytest.raises(ValueError, match=rf"Smallest classes: .*{names[len(class_sizes) - 1]} \(1\)"):
        class_shares(class_sizes, sizes, names=names)
