"""Rank correlations: interval and test agree, and reach the coverage and power of the documented table."""

import itertools
import math
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import analysis.statistics.ranks
from analysis.statistics.correlation import partial_rank_correlation, rank_correlation
from analysis.statistics.ranks import calibrated_interval, orders_of, permutation_test, t_test

pytestmark = pytest.mark.study

STUDIES = 200
PLANTED = (0.0, 0.3, 0.6, 0.9)


def spearman_of(correlation: float) -> float:
    """Return Spearman's correlation of a bivariate normal distribution with this Pearson correlation."""
    return 6 / math.pi * math.asin(correlation / 2)


def documented_table() -> dict[int, list[float]]:
    """Return coverage and power by number of observations, from the module's docstring."""
    rows = re.findall(r"^ {8}(\d+) +([\d. ]+)$", analysis.statistics.ranks.__doc__ or "", flags=re.MULTILINE)
    return {int(n): [float(each) for each in values.split()] for n, values in rows}


@pytest.mark.slow
@pytest.mark.parametrize("n", [6, 8, 12, 16, 24])
def test_coverage_and_power_are_those_that_the_module_states(n: int) -> None:
    generator = np.random.default_rng(n)
    stated = documented_table()[n]
    for place, correlation in enumerate(PLANTED):
        truth, covered, found = spearman_of(correlation), 0, 0
        for _ in range(STUDIES):
            x = generator.normal(size=n)
            y = correlation * x + math.sqrt(1 - correlation**2) * generator.normal(size=n)
            estimate = rank_correlation(x, y)
            covered += estimate.low <= truth <= estimate.high
            found += estimate.low > 0 or estimate.high < 0
        for share, expected in ((covered / STUDIES, stated[place]), (found / STUDIES, stated[4 + place])):
            # Three standard errors, plus the rounding of the table.
            error = 3 * math.sqrt(max(expected * (1 - expected), 0.004) / STUDIES) + 0.005
            assert share == pytest.approx(expected, abs=error), (n, correlation, covered, found)


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), min_size=5, max_size=7))
def test_an_interval_excludes_0_if_and_only_if_its_test_rejects(pairs: list[tuple[int, int]]) -> None:
    x, y = np.array(pairs, dtype=float).T
    found = rank_correlation(x, y)
    if math.isnan(found.low):
        assert math.isnan(found.value) or (found.p_value or 0) > 0.05
    else:
        assert (found.low > 0 or found.high < 0) == (found.p_value is not None and found.p_value <= 0.05)
        assert found.low <= found.value <= found.high


@pytest.mark.parametrize("n", [8, 15, 40])
def test_they_agree_for_seeded_permutations_and_for_held_values(n: int) -> None:
    generator = np.random.default_rng(n)
    for number in range(60):
        x, held = generator.normal(size=(2, n))
        y = 0.5 * x + generator.normal(size=n)
        for found in (rank_correlation(x, y, seed=number), partial_rank_correlation(x, y, held)):
            assert found.p_value is not None
            assert (found.low > 0 or found.high < 0) == (found.p_value <= 0.05)
            assert -1 <= found.low <= found.value <= found.high <= 1


def test_an_exact_p_value_counts_the_orders_by_hand() -> None:
    x, y = np.arange(5.0), np.array([1.0, 2.0, 3.0, 5.0, 4.0])
    # The sum of squared rank differences is 2 here. 1 + 4 orders have a sum of 0 or 2, and 1 + 4 have 40 or 38.
    reached = sum(
        sum((a - b) ** 2 for a, b in enumerate(order)) in (0, 2, 38, 40) for order in itertools.permutations(range(5))
    )
    assert reached == 10
    found = rank_correlation(x, y)
    assert found.p_value == pytest.approx(10 / 120)
    assert "exact permutation test over 120 orders" in found.method
    # Critical value of Spearman's correlation in published tables: 0.886 for n = 6, two-sided 0.05.
    orders, exact = orders_of(6, 0)
    assert permutation_test(np.arange(6.0), np.arange(6.0), orders, exact=exact).critical == pytest.approx(
        0.8857, abs=1e-4
    )


def test_seeded_permutations_are_close_to_the_tables() -> None:
    x = np.random.default_rng(0).normal(size=10)
    orders, exact = orders_of(10, 1)
    assert not exact
    # 0.648 in published tables for n = 10.
    assert permutation_test(x, x[::-1].copy(), orders).critical == pytest.approx(0.648, abs=0.025)


def test_the_t_test_is_the_one_of_pearsons_correlation() -> None:
    x, y = np.random.default_rng(2).normal(size=(2, 12))
    expected = stats.pearsonr(x, y)
    test = t_test(float(expected.statistic), 10)
    assert test.p_value == pytest.approx(expected.pvalue)
    assert test.critical == pytest.approx(0.5760, abs=1e-4)  # published tables, 10 degrees of freedom


def test_the_interval_is_bonetts_and_wrights_with_another_size() -> None:
    # If the critical value c is derived from their standard error at r = c, their interval equals ours.
    n, r = 30, 0.4
    z, error = math.atanh(r), math.sqrt((1 + r**2 / 2) / (n - 3))
    theirs = [math.tanh(z - 1.959964 * error), math.tanh(z + 1.959964 * error)]
    low, high = 0.0, 0.9
    for _ in range(60):  # c with artanh(c) = 1.96 √((1 + c²/2) / (n − 3))
        c = (low + high) / 2
        low, high = (c, high) if math.atanh(c) < 1.959964 * math.sqrt((1 + c**2 / 2) / (n - 3)) else (low, c)
    assert calibrated_interval(r, c, n) == pytest.approx(theirs, abs=1e-6)
    assert calibrated_interval(-r, c, n) == pytest.approx([-theirs[1], -theirs[0]], abs=1e-6)


def test_few_observations_that_no_test_can_reject_have_no_interval() -> None:
    found = rank_correlation([0.0, 0, 0, 0, 1], [0.0, 0, 0, 0, 1])
    assert found.value == pytest.approx(1)
    assert found.p_value == pytest.approx(0.2)
    assert math.isnan(found.low)
    assert "no correlation of so few observations is significant" in found.method
