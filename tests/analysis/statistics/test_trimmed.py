"""Trimmed mean: by hand, against SciPy, and with the documented coverage."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.estimates import mean_interval
from analysis.statistics.trimmed import trimmed_mean


def test_a_trimmed_mean_by_hand() -> None:
    found = trimmed_mean([0.1, 0.80, 0.82, 0.84, 0.95, math.nan])
    # One value is cut at each end. Winsorised: 0.80, 0.80, 0.82, 0.84, 0.84, variance 0.0004; t(0.975, 2) = 4.302653.
    half = 4.302653 * 0.02 / (0.6 * math.sqrt(5))
    assert (found.value, found.low, found.high, found.n) == pytest.approx((0.82, 0.82 - half, 0.82 + half, 5))


@pytest.mark.parametrize("n", [5, 9, 10, 23])
def test_the_value_and_the_error_are_scipys(n: int) -> None:
    values = np.random.default_rng(n).exponential(size=n)
    found, cut = trimmed_mean(values), int(0.2 * n)
    assert found.value == pytest.approx(stats.trim_mean(values, 0.2))
    # SciPy's `trimmed_se` divides the standard deviation of winsorised values by (1 − 2 · 0.2) √n. Here the actual
    # share of cut values replaces 0.2.
    winsorised = stats.mstats.winsorize(values, limits=cut / n)
    error = np.asarray(winsorised).std(ddof=1) / ((1 - 2 * cut / n) * math.sqrt(n))
    assert (found.high - found.low) / 2 == pytest.approx(error * stats.t.ppf(0.975, n - 2 * cut - 1))


def test_fewer_than_five_values_are_not_trimmed() -> None:
    found = trimmed_mean([0.1, 0.2, 0.3, 0.4])
    assert math.isnan(found.value)
    assert "n < 5" in found.method


@pytest.mark.slow
@pytest.mark.parametrize(("n", "trimmed", "mean"), [(5, 0.94, 0.41), (10, 0.94, 0.65), (16, 0.95, 0.81)])
def test_with_a_tenth_of_collapses_it_is_covered_and_the_mean_is_not(n: int, trimmed: float, mean: float) -> None:
    generator, studies = np.random.default_rng(n), 800

    def scores(size: int | tuple[int, int]) -> np.ndarray:
        good, collapsed = generator.normal(0.82, 0.01, size), generator.normal(0.1, 0.005, size)
        return np.where(generator.random(size) < 0.1, collapsed, good)

    population = scores(400_000)
    truths = stats.trim_mean(population, 0.2), population.mean()
    covered = np.zeros(2)
    for each in scores((studies, n)):
        estimates = trimmed_mean(each), mean_interval(each)
        covered += [one.low <= truth <= one.high for one, truth in zip(estimates, truths, strict=True)]
    for share, expected in zip(covered / studies, (trimmed, mean), strict=True):
        assert share == pytest.approx(expected, abs=3 * math.sqrt(expected * (1 - expected) / studies) + 0.005)
