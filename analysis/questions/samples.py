"""Confirmed configs compared over test samples and within classes, from the recorded answers in their trials."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from analysis.reading.trials import numbers, objective_measure
from analysis.statistics.crossed import crossed_mean
from analysis.statistics.estimates import Estimate, mean_interval, paired_difference, within_range
from trainables.spec.measures import ACCURACY, CLASSES, CORRECT


@dataclass(frozen=True)
class ClassResult:
    """Results for two configs within one class, over their common seeds.

    Args:
        place: class number.
        samples: number of test samples in the class.
        accuracy: first config's accuracy on these samples.
        difference: first config's accuracy minus the second's, paired by seed.
        gap: first config's sharpness gap over the validation samples in the class, in nats; n is 0 without a gap.
    """

    place: int
    samples: int
    accuracy: Estimate
    difference: Estimate
    gap: Estimate


def correct_samples(rows: pa.Table) -> dict[int, NDArray[np.bool_]]:
    """Return the correctly classified test samples of each trial, (N,) by replicate, for trials with a bitmap.

    Args:
        rows: trials of a single config.
    """
    if CORRECT not in rows.column_names:
        return {}
    found = {}
    columns = (rows["replicate"].to_pylist(), rows[CORRECT].to_pylist(), numbers(rows, "data/test_samples").tolist())
    for replicate, bits, samples in zip(*columns, strict=True):
        if bits is not None and math.isfinite(samples):
            packed = np.frombuffer(bits, dtype=np.uint8)
            if len(packed) * 8 >= samples:
                found[replicate] = np.unpackbits(packed, count=int(samples)).astype(np.bool_)
    return found


def crossed_difference(ones: Sequence[pa.Table], others: Sequence[pa.Table], *, seed: int = 0) -> Estimate | None:
    """Compare the test accuracy of two configs, or two groups of configs, over seeds and samples.

    Args:
        ones: trials by config in the first group, averaged by seed and sample.
        others: trials by config in the second group.
        seed: random seed for the bootstrap.

    Returns:
        First minus second, for these configs. None if the objective is not accuracy, or no seed has all answers.
    """
    if not ones[0].num_rows or objective_measure(ones[0]) != ACCURACY:
        return None
    own, other = ([correct_samples(table) for table in tables] for tables in (ones, others))
    shared = sorted(set.intersection(*(set(each) for each in (*own, *other))))
    sizes = {len(answers[replicate]) for answers in (*own, *other) for replicate in shared}
    if len(sizes) != 1:
        return None
    first, second = (
        np.array([np.mean([answers[replicate] for answers in side], axis=0) for replicate in shared])
        for side in (own, other)
    )
    return crossed_mean(first - second, seed=seed)


def compare_classes(one: pa.Table, other: pa.Table, *, seed: int = 0) -> list[ClassResult]:
    """Compare two configs within each class; empty if the records have no sums per class.

    Args:
        one: first config's trials.
        other: second config's trials.
        seed: random seed for the bootstrap.
    """
    own, others = _classes(one), _classes(other)
    shared = sorted(own.keys() & others.keys())
    sizes = {len(each[replicate]) for each in (own, others) for replicate in shared}
    if not shared or len(sizes) > 1:
        return []
    results = []
    for place in range(sizes.pop()):
        cells = [(own[each][place], others[each][place]) for each in shared]
        first, second = ([_share(cell) for cell in column] for column in zip(*cells, strict=True))
        gaps = [_ratio(cell["gap"], cell["gap_count"]) for cell, _ in cells]
        samples = int(cells[0][0]["count"] or 0)
        difference = within_range(paired_difference(first, second, seed=seed), -1, 1)
        accuracy = within_range(mean_interval(first), 0, 1)
        results.append(ClassResult(place, samples, accuracy, difference, mean_interval(gaps)))
    return results


def _classes(rows: pa.Table) -> dict[int, list[Mapping[str, float | None]]]:
    if CLASSES not in rows.column_names:
        return {}
    both = zip(rows["replicate"].to_pylist(), rows[CLASSES].to_pylist(), strict=True)
    return {replicate: classes for replicate, classes in both if classes is not None}


def _share(cell: Mapping[str, float | None]) -> float:
    return _ratio(cell["correct"], cell["count"])


def _ratio(part: float | None, whole: float | None) -> float:
    return math.nan if part is None or not whole else part / whole
