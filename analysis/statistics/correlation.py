"""Rank correlations between independent or grouped observations, plain and given covariates."""

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.estimates import MIN_UNITS, Estimate, as_columns, percentile_estimate
from analysis.statistics.ranks import CorrelationTest, calibrated_interval, orders_of, permutation_test, t_test
from analysis.statistics.resampling import (
    CONFIDENCE,
    Floats,
    Units,
    complete,
    partial_rank_correlations,
    resampled,
    unit_count,
)
from trainables.display.numbers import counted


def rank_correlation(x: ArrayLike, y: ArrayLike, *, groups: Sequence[Any] | None = None, seed: int = 0) -> Estimate:
    """Compute Spearman's rank correlation, with mid-ranks for ties, an interval and a p-value that agree.

    The p-value comes from permuting y, and the interval excludes 0 if and only if it is at most 0.05
    (`analysis.statistics.ranks` shows coverage and power). For grouped pairs there is no p-value, and the interval is a
    percentile bootstrap over groups.

    Args:
        x: (n,) values; a pair with nan is dropped.
        y: (n,) values.
        groups: (n,) label of each pair's independent unit, such as the config. Whole groups are then resampled,
            and n counts groups. None if every pair is independent.
        seed: random seed for the permutations or the bootstrap.

    Returns:
        Correlation, −1 to 1; nan for a constant input, and without bounds for fewer than 5 units.

    Raises:
        ValueError: if the lengths differ.

    Source: Spearman (1904); Davison and Hinkley, Bootstrap Methods (1997), section 3.8, for groups.
    """
    name = "Spearman rank correlation"
    columns, units = complete([x, y], groups)
    n, value = len(columns), _correlation_of(columns)
    if unit_count(units) < n:
        return _grouped_rank_correlation(name, columns, units, seed)
    if math.isnan(value):
        return calibrated_estimate(name, value, None, n)
    orders, exact = orders_of(n, seed)
    return calibrated_estimate(name, value, permutation_test(columns[:, 0], columns[:, 1], orders, exact=exact), n)


def partial_rank_correlation(
    x: ArrayLike, y: ArrayLike, covariates: ArrayLike, *, groups: Sequence[Any] | None = None, seed: int = 0
) -> Estimate:
    """Compute the rank correlation between x and y after regressing the covariates' ranks out of both.

    Only linear effects in the covariates' ranks are removed. A covariate with a nonlinear effect, or one measured with
    error, still confounds.

    The p-value is Student's t with n − 2 − k degrees of freedom, and the interval excludes 0 if and only if it is at
    most 0.05 (`analysis.statistics.ranks`). For grouped observations there is no p-value, and the interval is a
    percentile bootstrap over groups.

    Args:
        x: (n,) values; an observation with nan anywhere is dropped.
        y: (n,) values.
        covariates: (n,) or (n, k), values to hold; pass a categorical one as indicator columns.
        groups: (n,) label of each observation's independent unit, or None if every one is independent.
        seed: random seed for the bootstrap.

    Returns:
        Partial correlation, −1 to 1; nan if the covariates explain all of x or y, and without bounds for fewer than 5
        units or without a degree of freedom.

    Raises:
        ValueError: if the lengths differ.
    """
    held = as_columns(covariates)
    name = f"partial rank correlation given {counted(len(held), 'covariate')}"
    columns, units = complete([x, y, *held], groups)
    n, value = len(columns), _correlation_of(columns)
    if unit_count(units) < n:
        return _grouped_rank_correlation(name, columns, units, seed)
    freedom = n - 2 - len(held)
    return calibrated_estimate(name, value, t_test(value, freedom) if freedom >= 1 else None, n)


def calibrated_estimate(
    name: str,
    value: float,
    test: CorrelationTest | None,
    n: int,
    *,
    rows: int | None = None,
    unit: str = "observations",
) -> Estimate:
    """Return a rank correlation with a test's p-value, and with the interval in agreement with the test.

    Args:
        name: estimator name for `method`.
        value: correlation; nan if an input does not vary.
        test: test for the correlation, or None if there is none.
        n: number of independent units.
        rows: number of ranked observations. Default: n.
        unit: name of the units.

    Returns:
        Estimate without bounds for fewer than 5 units, or if the test rejects no correlation.
    """
    if math.isnan(value):
        return Estimate(value, math.nan, math.nan, n, f"{name}: undefined, an input does not vary")
    if test is None:
        return Estimate(value, math.nan, math.nan, n, f"{name}, no interval: no degree of freedom is left")
    low, high, interval = math.nan, math.nan, f"no interval for fewer than {MIN_UNITS} {unit}"
    if n >= MIN_UNITS:
        low, high = calibrated_interval(value, test.critical, n if rows is None else rows)
        interval = f"{CONFIDENCE} interval on Fisher's scale that excludes 0 if the test rejects"
        interval = f"no interval, no correlation of so few {unit} is significant" if math.isnan(low) else interval
    return Estimate(value, low, high, n, f"{name}, {interval}; {test.method}", test.p_value)


def _correlation_of(columns: Floats) -> float:
    """Compute the partial rank correlation between the first two columns (n, k); nan for no observations."""
    return float(partial_rank_correlations(columns, np.ones((1, len(columns))))[0, 0]) if len(columns) else math.nan


def _grouped_rank_correlation(name: str, columns: Floats, units: Units, seed: int) -> Estimate:
    n, observed, values = unit_count(units), _correlation_of(columns), np.empty(0)
    if n >= MIN_UNITS and not math.isnan(observed):
        values = resampled(partial_rank_correlations, columns, units, seed)[:, 0]
    return percentile_estimate(name, observed, values, n, "groups")
