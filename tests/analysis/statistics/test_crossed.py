"""Intervals over seeds and samples, with planted effects of both."""

import numpy as np
import pytest
from scipy import stats

from analysis.statistics.crossed import crossed_mean


def two_configs(generator, seeds, samples, *, own=1.0):
    """Return the difference in correctness of two configs that are equally good on average, from a probit model."""
    difficulty, answers = generator.normal(0, 1.2, samples), []
    for _ in range(2):
        luck, taste = generator.normal(0, 0.12, (seeds, 1)), generator.normal(0, own, samples)
        answers.append(1.0 + luck + difficulty + taste + generator.normal(size=(seeds, samples)) > 0)
    return answers[0].astype(float) - answers[1]


def test_the_mean_is_that_of_the_table_and_n_counts_seeds():
    table = np.arange(200.0).reshape(4, 50)
    found = crossed_mean(table)
    assert (found.value, found.n) == (99.5, 4)
    assert found.low < 99.5 < found.high
    assert found == crossed_mean(table)
    assert "4 seeds and 50 samples" in found.method


def test_the_variance_is_that_of_the_rows_if_samples_are_alike_and_of_the_columns_if_seeds_are():
    generator = np.random.default_rng(0)
    rows = np.repeat(generator.normal(size=(8, 1)), 400, axis=1)
    found, half = crossed_mean(rows), stats.t.ppf(0.975, 7) * rows[:, 0].std(ddof=1) / np.sqrt(8)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)
    columns = np.repeat(generator.normal(size=(1, 400)), 8, axis=0)
    found, half = crossed_mean(columns), 1.96 * columns[0].std(ddof=1) / np.sqrt(400)
    assert (found.high - found.low) / 2 == pytest.approx(half, rel=0.15)


def test_small_and_constant_tables_have_no_interval_or_one_of_no_width():
    assert np.isnan(crossed_mean(np.zeros((3, 100))).low)
    assert np.isnan(crossed_mean(np.zeros((5, 29))).low)
    assert np.isnan(crossed_mean(np.zeros((0, 100))).value)
    constant = crossed_mean(np.full((5, 100), 0.25))
    assert (constant.low, constant.high) == pytest.approx((0.25, 0.25))
    with pytest.raises(ValueError, match="two-dimensional"):
        crossed_mean(np.zeros(5))


@pytest.mark.study
@pytest.mark.parametrize(("seeds", "samples"), [(5, 300), (10, 360), (10, 1000)])
def test_it_covers_the_population_value_where_an_interval_over_seeds_does_not(seeds, samples):
    """200 simulated studies each (standard error of a coverage 0.015)."""
    generator, crossed, naive = np.random.default_rng(seeds + samples), [], []
    for number in range(200):
        table = two_configs(generator, seeds, samples, own=1.4)
        found, means = crossed_mean(table, seed=number), table.mean(axis=1)
        crossed.append(found.low < 0 < found.high)
        half = stats.t.ppf(0.975, seeds - 1) * means.std(ddof=1) / np.sqrt(seeds)
        naive.append(abs(means.mean()) < half)
    assert 0.92 <= np.mean(crossed) <= 0.995
    assert np.mean(naive) < 0.92
