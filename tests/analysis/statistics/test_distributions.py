"""Quantiles, tails and ranks equal those of `scipy.stats`, bit for bit."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.statistics import distributions


@pytest.mark.parametrize("freedom", [0.5, 1, 2.7, 4, 19, 1e3, 1e7])
@pytest.mark.parametrize("probability", [1e-6, 0.025, 0.5, 0.9, 0.975])
def test_quantiles_equal_those_of_scipy_stats(freedom, probability):
    assert distributions.t_quantile(probability, freedom) == stats.t.ppf(probability, freedom)
    assert distributions.f_quantile(probability, 3, freedom) == stats.f.ppf(probability, 3, freedom)
    found = distributions.chi2_quantiles(np.array([probability]), freedom)
    assert found.tolist() == [stats.chi2.ppf(probability, freedom)]


@pytest.mark.parametrize("value", [-40.0, -1.96, 0.0, 1e-9, 2.5, 300.0, math.inf])
def test_tails_equal_those_of_scipy_stats(value):
    assert distributions.t_tail(value, 3) == stats.t.sf(value, 3)
    assert distributions.normal_tail(value) == stats.norm.sf(value)
    assert distributions.chi2_tail(abs(value), 5) == stats.chi2.sf(abs(value), 5)


def test_without_degrees_of_freedom_a_quantile_is_undefined():
    assert math.isnan(distributions.t_quantile(0.975, 0))
    assert math.isnan(distributions.t_quantile(0.975, math.nan))


@given(st.lists(st.lists(st.integers(-3, 3) | st.just(math.nan), min_size=4, max_size=4), max_size=4))
def test_ranks_equal_those_of_scipy_stats(rows):
    table = np.array(rows, dtype=np.float64).reshape(len(rows), 4)
    np.testing.assert_array_equal(distributions.mid_ranks(table), stats.rankdata(table, axis=1))
