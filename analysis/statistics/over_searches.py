"""Means and differences between methods over two levels of chance: hyperparameter searches, and seeds.

Notation: Y is (R, n), the scores of R configs on the same n seeds, one config from each independent search for one
method. Two searches for a method differ by chance, with variance τ² between configs beyond the seeds. Every config has
separate noise σ² on each seed, in addition to the seed effect common to all configs of a method.

The mean over searches and seeds has variance S/n + τ²/R. S is the variance over seeds of the mean over searches, which
contains the seed effect common to all configs, and σ²/R. The variance M between the config means in a method estimates
τ² + σ²/n. τ² is therefore estimated by M − σ²/n, pooled over methods and not below 0. With two searches per method, one
method alone would leave one degree of freedom. Pooling assumes the same τ² for all methods.

The degrees of freedom are Satterthwaite's for the mean squares S, M and σ². If τ² is estimated as 0, only S remains.
Coverage of differences in 4,000 simulated studies each, with two searches, 5 to 30 seeds, and τ from 0 to 2.5 σ:

        methods   as here         τ² taken for a mean square
        3         0.94 to 0.97    0.92 to 0.96
        5         0.95 to 0.98    0.94 to 0.96
        8         0.95 to 0.97    0.94 to 0.96

A bootstrap over both levels was rejected: resamples from two searches have three values.

Source: Searle, Casella and McCulloch, Variance Components (1992), chapter 4, for the mean squares; Satterthwaite, An
approximate distribution of estimates of variance components (1946); Bouthillier et al., Accounting for variance in
machine learning benchmarks (2021), for searches as a source of variance.
"""

import math
from collections.abc import Sequence
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from analysis.statistics.distributions import t_quantile, t_tail
from analysis.statistics.estimates import Estimate
from analysis.statistics.resampling import CONFIDENCE

Scores = NDArray[np.float64]

MIN_SEEDS: Final = 2
_ROUNDING: Final = 1e-24  # rounding error of the variance between equal scores


class SearchSpread(NamedTuple):
    """Spread between searches for one method, pooled over methods.

    Args:
        variance: τ², variance between searches beyond seeds, at least 0; nan if no method has two searches.
        freedom: degrees of freedom for `mean_square`: searches less methods.
        mean_square: variance between the config means in a method.
        noise: part of `mean_square` from seeds, σ²/n.
        noise_freedom: degrees of freedom for `noise`.
    """

    variance: float
    freedom: int
    mean_square: float
    noise: float
    noise_freedom: int


def between_searches(tables: Sequence[Scores]) -> SearchSpread:
    """Estimate the variance between searches for one method, beyond seeds.

    Args:
        tables: (R, n) scores by method, one row per search, columns paired by seed. A method with one search or
            one seed adds nothing.
    """
    squares = noise = 0.0
    freedom = noise_freedom = 0
    for table in tables:
        searches, seeds = table.shape
        if searches < 2 or seeds < MIN_SEEDS:
            continue
        rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
        squares += (searches - 1) * float(table.mean(axis=1).var(ddof=1))
        noise += float((rest**2).sum()) / (seeds - 1) / seeds
        freedom += searches - 1
        noise_freedom += (searches - 1) * (seeds - 1)
    if not freedom:
        return SearchSpread(math.nan, 0, math.nan, math.nan, 0)
    mean_square, noise = squares / freedom, noise / freedom
    return SearchSpread(max(0.0, mean_square - noise), freedom, mean_square, noise, noise_freedom)


def mean_over_searches(table: Scores, spread: SearchSpread) -> Estimate:
    """Average the scores of one method over searches and seeds, with Student's t interval over both.

    Args:
        table: (R, n) scores, without nan.
        spread: spread between searches for one method.

    Returns:
        Mean, in the scores' unit; n counts seeds. Bounds are nan for fewer than two seeds.
    """
    searches, seeds = table.shape
    name = f"mean over {searches} searches and {seeds} seeds"
    return _estimate(name, table.mean(axis=0), 1 / searches, spread)


def difference_over_searches(
    own: Scores, other: Scores, spread: SearchSpread, *, smallest_effect: float | None = None
) -> Estimate:
    """Estimate the mean difference between two methods over searches and seeds, paired by seed.

    The p-value is from the t-test with the same variance and degrees of freedom as the interval. The equivalence test
    is two one-sided t-tests with the same values.

    Args:
        own: (R, n) scores for the first method, without nan.
        other: (Q, n) scores for the second method on the same seeds.
        spread: spread between searches for one method.
        smallest_effect: smallest relevant difference, to test for equivalence.

    Returns:
        First minus second; n counts seeds. Bounds are nan for fewer than two seeds.
    """
    differences = own.mean(axis=0) - other.mean(axis=0)
    searches = f"{len(own)} searches" if len(own) == len(other) else f"{len(own)} and {len(other)} searches"
    name = f"difference of means over {searches} and {len(differences)} seeds, paired by seed"
    share = 1 / len(own) + 1 / len(other)
    return _estimate(name, differences, share, spread, tested=True, smallest_effect=smallest_effect)


def _estimate(
    name: str,
    series: Scores,
    share: float,
    spread: SearchSpread,
    *,
    tested: bool = False,
    smallest_effect: float | None = None,
) -> Estimate:
    """Return the mean of per-seed values (n,), with `share` times τ² added to the variance."""
    n, value = len(series), float(series.mean()) if len(series) else math.nan
    if n < MIN_SEEDS or not spread.freedom:
        return Estimate(value, math.nan, math.nan, n, f"{name}, no interval for n < {MIN_SEEDS}")
    over_seeds, over_searches = float(series.var(ddof=1)) / n, share * spread.variance
    total, uncertainty = over_seeds + over_searches, over_seeds**2 / (n - 1)
    if total <= _ROUNDING:
        return Estimate(value, math.nan, math.nan, n, f"{name}, no interval, all seeds and searches are equal")
    if over_searches:
        uncertainty += (share * spread.mean_square) ** 2 / spread.freedom
        uncertainty += (share * spread.noise) ** 2 / spread.noise_freedom
    freedom, error = total**2 / uncertainty, math.sqrt(total)
    half = t_quantile((1 + CONFIDENCE) / 2, freedom) * error
    method = f"{name}, Student t interval over both, {CONFIDENCE}"
    if not tested:
        return Estimate(value, value - half, value + half, n, method)
    p_value = 2 * t_tail(abs(value) / error, freedom)
    equivalent = None
    if smallest_effect is not None:
        equivalent = t_tail((smallest_effect - abs(value)) / error, freedom)
    return Estimate(value, value - half, value + half, n, f"{method}; t-test", p_value, smallest_effect, equivalent)
