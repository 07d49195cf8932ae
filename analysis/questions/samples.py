"""Confirmed configs compared over test samples and within classes, from the recorded answers of their trials."""

import math
from collections.abc import Mapping
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
    """Results of two configs within one class, over the seeds that both have.

    Args:
        place: number of the class.
        samples: test samples of the class.
        accuracy: accuracy of the first config on them.
        difference: accuracy of the first config minus that of the second, paired by seed.
        gap: sharpness gap of the first config over the validation samples of the class, in nats; n is 0 without one.
    """

    place: int
    samples: int
    accuracy: Estimate
    difference: Estimate
    gap: Estimate


def correct_samples(rows: pa.Table) -> dict[int, NDArray[np.bool_]]:
    """Return which test samples each trial classified correctly, (N,) by replicate, for trials with a bitmap.

    Args:
        rows: trials of one config.
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


def crossed_difference(one: pa.Table, other: pa.Table, *, seed: int = 0) -> Estimate | None:
    """Compare the test accuracy of two configs over seeds and samples.

    Args:
        one: trials of the first config.
        other: trials of the second config.
        seed: random seed for the bootstrap.

    Returns:
        First minus second. None if the objective is not accuracy, or no seed has the answers of both.
    """
    if not one.num_rows or objective_measure(one) != ACCURACY:
        return None
    own, others = correct_samples(one), correct_samples(other)
    shared = sorted(own.keys() & others.keys())
    pairs = [(own[each], others[each]) for each in shared if len(own[each]) == len(others[each])]
    if not pairs or len({len(first) for first, _ in pairs}) > 1:
        return None
    return crossed_mean(np.array([first.astype(np.float64) - second for first, second in pairs]), seed=seed)


def compare_classes(one: pa.Table, other: pa.Table, *, seed: int = 0) -> list[ClassResult]:
    """Compare two configs within each class; empty if the records have no sums per class.

    Args:
        one: trials of the first config.
        other: trials of the second config.
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
