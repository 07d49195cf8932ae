"""Means and differences over searches and seeds, against references and planted values."""

import math

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.over_searches import between_searches, difference_over_searches, mean_over_searches


def test_the_variance_between_searches_is_that_of_means_less_what_seeds_explain():
    table = np.array([[1.0, 2.0, 3.0], [2.0, 3.0, 4.0]])  # seed effects are equal, so all variance is between searches
    assert between_searches([table]) == pytest.approx((0.5, 1, 0.5, 0.0, 2))
    noise = np.array([[1.0, -1.0], [-1.0, 1.0]])  # residuals of 1, so 4 / (1 * 1) over 2 seeds
    assert between_searches([noise]) == (0.0, 1, 0.0, 2.0, 1)
    assert between_searches([table, np.ones((1, 3))]).variance == pytest.approx(0.5)
    assert np.isnan(between_searches([np.ones((1, 3))]).variance)
    assert between_searches([np.ones((2, 1)), np.ones((2, 0))]).freedom == 0


def test_the_interval_is_that_of_satterthwaite_by_hand():
    own, other = np.array([[0.80, 0.82, 0.81], [0.84, 0.85, 0.87]]), np.array([[0.79, 0.80, 0.83], [0.78, 0.80, 0.80]])
    found = difference_over_searches(own, other, between_searches([own, other]), smallest_effect=0.1)
    # Mean squares by loops over the cells, independently of the module.
    squares, noise = 0.0, 0.0
    for table in (own, other):
        means = [sum(row) / 3 for row in table]
        columns = [(table[0][s] + table[1][s]) / 2 for s in range(3)]
        grand = sum(means) / 2
        squares += sum((mean - grand) ** 2 for mean in means) / 2
        noise += sum((table[r][s] - means[r] - columns[s] + grand) ** 2 for r in range(2) for s in range(3)) / 2 / 2 / 3
    series = [(own[0][s] + own[1][s] - other[0][s] - other[1][s]) / 2 for s in range(3)]
    mean = sum(series) / 3
    seeds = sum((each - mean) ** 2 for each in series) / 2 / 3
    total = seeds + squares - noise
    freedom = total**2 / (seeds**2 / 2 + squares**2 / 2 + noise**2 / 4)
    half = stats.t.ppf(0.975, freedom) * math.sqrt(total)
    assert (found.value, found.low, found.high, found.n) == pytest.approx((mean, mean - half, mean + half, 3))
    assert found.p_value == pytest.approx(2 * stats.t.sf(mean / math.sqrt(total), freedom))
    assert found.equivalence_p == pytest.approx(stats.t.cdf((mean - 0.1) / math.sqrt(total), freedom))


def test_without_a_spread_between_searches_the_interval_is_that_over_seeds():
    table = np.array([[0.80, 0.82, 0.87], [0.80, 0.82, 0.87]])  # both searches found one config
    found = mean_over_searches(table, between_searches([table]))
    low, high = stats.t.interval(0.95, 2, table[0].mean(), stats.sem(table[0]))
    assert (found.low, found.high) == pytest.approx((low, high))
    assert "over 2 searches and 3 seeds" in found.method


def test_too_few_or_equal_scores_have_no_interval():
    one = np.array([[0.8], [0.9]])
    spread = between_searches([np.array([[0.8, 0.9], [0.7, 0.9]])])
    for table in (one, np.ones((2, 0))):
        assert math.isnan(mean_over_searches(table, spread).low)
        assert "no interval for n < 2" in mean_over_searches(table, spread).method
    equal = np.full((2, 4), 0.8)
    found = difference_over_searches(equal, equal, between_searches([equal]))
    assert (found.value, found.p_value) == (0.0, None)
    assert "all seeds and searches are equal" in found.method


def planted(generator, methods, seeds, between):
    """Return scores (2, seeds) of equally good methods.

    Noise is added per seed, per method and seed, and per config and seed.
    """
    luck = generator.normal(0, 0.006, seeds)
    return [
        0.8
        + luck
        + generator.normal(0, 0.003, seeds)
        + generator.normal(0, between, (2, 1))
        + generator.normal(0, 0.004, (2, seeds))
        for _ in range(methods)
    ]


@pytest.mark.slow
@pytest.mark.parametrize("between", [0.0, 0.004, 0.01])
@pytest.mark.parametrize(("methods", "seeds"), [(3, 5), (3, 10), (5, 10)])
def test_intervals_cover_and_tests_reject_at_their_level_whatever_searches_do(methods, seeds, between):
    """800 simulated studies each, without a difference (standard error of a coverage 0.008).

    The interval of a mean over searches and seeds covers the expected value over further searches and seeds.
    """
    generator = np.random.default_rng(seeds)
    covered, rejected, means, equivalent = [], [], [], []
    for _ in range(800):
        tables = planted(generator, methods, seeds, between)
        spread = between_searches(tables)
        found = difference_over_searches(tables[1], tables[0], spread)
        covered.append(found.low < 0 < found.high)
        rejected.append(found.p_value < 0.05)
        # The true difference equals the smallest relevant effect, so a claim of equivalence is false.
        apart = difference_over_searches(tables[1] + 0.005, tables[0], spread, smallest_effect=0.005)
        equivalent.append(apart.is_equivalent())
        mean = mean_over_searches(tables[0], spread)
        means.append(mean.low < 0.8 < mean.high)
    assert 0.93 < np.mean(covered) < 0.99
    assert np.mean(rejected) == pytest.approx(1 - np.mean(covered))
    assert np.mean(equivalent) < 0.06
    assert 0.93 < np.mean(means) < 0.99


@pytest.mark.slow
def test_a_difference_is_found_nearly_as_often_as_with_known_variances():
    """1,000 simulated studies of six methods with a difference of three standard errors (power 0.85 by a z-test)."""
    generator = np.random.default_rng(3)
    error = math.sqrt((2 * 0.003**2 + 0.004**2) / 10 + 0.004**2)
    found = []
    for _ in range(1000):
        tables = planted(generator, 6, 10, 0.004)
        estimate = difference_over_searches(tables[1] + 3 * error, tables[0], between_searches(tables))
        found.append(estimate.low > 0)
    assert 0.6 < np.mean(found) < 0.85
