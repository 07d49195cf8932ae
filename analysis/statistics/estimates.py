"""Estimates of means, differences, rank correlations and mediation, each with n, an interval and its method.

Intervals are of 95% unless an argument says otherwise, every bootstrap is seeded, and an observation with a
missing value is dropped, so that `n` tells what an estimate rests on. A correlation over the trials of a
search is exploratory: a sampler chose the configs, by the very outcome.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from analysis.statistics.resampling import (
    CONFIDENCE,
    RESAMPLES,
    Floats,
    complete,
    expanded_interval,
    mediation_effects,
    partial_rank_correlations,
    percentile_interval,
    resampled,
    studentised_interval,
    unit_count,
    without_spread,
)

# 2¹⁶ sign flips take about 10 ms; for more pairs a seeded sample of flips is drawn.
EXACT_PAIRS = 16
SIGN_FLIPS = 20_000
# Of two and three pairs Student's t interval is 12 and 4 standard deviations wide in the median, of four 2.8.
MIN_PAIRS = 4
# See `paired_difference`.
MIN_STUDENTISED = 6
# With fewer, the resamples repeat so few values that an interval would be an artefact of the method.
MIN_UNITS = 5


@dataclass(frozen=True)
class Estimate:
    """A number with what is known about its uncertainty.

    Args:
        value: the estimate; nan where the data do not define it.
        low: lower end of the interval; nan where there is too little for one.
        high: upper end of the interval.
        n: number of independent units that it rests on.
        method: estimator, interval and confidence in words, for a caption or a footnote.
        p_value: two-sided, where the method has a test.
    """

    value: float
    low: float
    high: float
    n: int
    method: str
    p_value: float | None = None

    def __str__(self) -> str:
        interval = "no interval" if math.isnan(self.low) else f"[{self.low:.3f}, {self.high:.3f}]"
        p_value = "" if self.p_value is None else f", p = {self.p_value:.2g}"
        return f"{self.value:.3f} {interval}{p_value}, n = {self.n}"


def expanded_estimate(name: str, value: float, draws: Floats, n: int, freedom: int) -> Estimate:
    """A value with the expanded interval of its resamples.

    Args:
        name: of the estimator, for `method`.
        value: observed.
        draws: (B,), of resamples of whole configs.
        n: configs.
        freedom: n less what was fitted to them.
    """
    low, high = expanded_interval(draws, n, freedom)
    method = f"{name}, expanded percentile bootstrap over configs, {CONFIDENCE}, {RESAMPLES} resamples"
    return Estimate(value, low, high, n, method)


class Mediation(NamedTuple):
    """How much of a treatment's effect passes through a mediator; total = direct + indirect."""

    direct: Estimate
    indirect: Estimate
    total: Estimate


def mean_interval(values: ArrayLike, *, confidence: float = CONFIDENCE) -> Estimate:
    """Mean of independent values with Student's t interval.

    Args:
        values: (n,) one value per independent unit, such as a seed; nan is dropped.
        confidence: coverage of the interval, between 0 and 1.

    Returns:
        The mean in the unit of the values; bounds are nan for n < 2.

    Raises:
        ValueError: for a confidence outside (0, 1), or values that are not one-dimensional.
    """
    if not 0 < confidence < 1:
        raise ValueError(f"confidence lies between 0 and 1, not at {confidence}; 0.95 is usual")
    kept = complete([values])[0][:, 0]
    n = len(kept)
    method = f"mean, Student t interval, {confidence:.3g}"
    if n < 2:
        value = float(kept[0]) if n else math.nan
        return Estimate(value, math.nan, math.nan, n, f"{method}: none for n < 2")
    low, high = _student_interval(kept, confidence)
    return Estimate(float(kept.mean()), low, high, n, method)


def within_range(estimate: Estimate, least: float, most: float) -> Estimate:
    """An estimate with its interval cut to what is possible, which one of few units may exceed.

    Args:
        estimate: whose value lies in the range.
        least: the smallest possible value.
        most: the largest one.

    Returns:
        The estimate as it is where its interval lies in the range or it has none; else with the bounds in the range,
        and a `method` that says so.
    """
    low, high = (float(np.clip(bound, least, most)) for bound in (estimate.low, estimate.high))
    if math.isnan(low) or (low, high) == (estimate.low, estimate.high):
        return estimate
    interval, separator, test = estimate.method.partition(";")
    words = f"cut to the possible range, {least:g} to {most:g}".replace("-", "−")
    return replace(estimate, low=low, high=high, method=f"{interval}, {words}{separator}{test}")


def paired_difference(a: ArrayLike, b: ArrayLike, *, seed: int = 0) -> Estimate:
    """Mean of a − b over pairs, such as two configs on the same replicates.

    The interval is Student's t for 4 and 5 pairs and the studentised bootstrap's from 6 on, which pays for skewed
    differences with width. In 2,500 simulated studies each of normal and of exponential differences it covered in 0.94
    to 0.96 and in 0.88 to 0.89 at n = 4 and 5, where the bootstrap covers in 0.94 to 0.95 of both, and in 0.94 to 0.95
    and 0.93 to 0.95 at n = 6 to 16, where Student's t covers in 0.94 to 0.96 and 0.89 to 0.92. But one bootstrap
    interval of normal differences in ten is longer than 30 standard deviations at n = 4, than 5.7 at 5, 3.7 at 6 and
    2.5 at 8 (Student's: 4.7, 3.5, 2.9, 2.2).

    A bound of the bootstrap is infinite where a resample of one repeated difference is not rare: in none of those
    studies, and of normal differences rounded to a quarter of their standard deviation in 35%, 4.7%, 0.4% and 0% of
    those of 4, 5, 6 and 8 pairs; of ones rounded to half of it in 4.1% and 0.6% at n = 6 and 8. `method` says then
    which bound there is not.

    The p-value is the sign-flip permutation test's on the mean, two-sided: exact for n ≤ 16, by enumerating
    all 2ⁿ flips, else from 20,000 seeded flips with the observed one counted in. Under its null a difference
    is as likely as its negative. It cannot fall below 2 / 2ⁿ: with 5 pairs, not below 0.0625.

    Args:
        a: (n,) values of the one, in the order of the pairs; a pair with a nan is dropped.
        b: (n,) values of the other.
        seed: of the bootstrap and of drawn flips.

    Returns:
        The mean difference in the unit of the values, with `p_value`; bounds are nan for n < 4 or equal
        differences.

    Raises:
        ValueError: if a and b differ in length.

    Source: Efron and Tibshirani (1993), section 12.5; Fisher, The Design of Experiments (1935), section 21.
    """
    pairs, _ = complete([a, b])
    differences = pairs[:, 0] - pairs[:, 1]
    n = len(differences)
    if n == 0:
        return Estimate(math.nan, math.nan, math.nan, 0, "mean paired difference: no complete pair")
    generator = np.random.default_rng(seed)
    low, high, interval = _interval_of_differences(differences, generator)
    p_value, test = _sign_flip_test(differences, generator)
    method = f"mean paired difference, {interval}; {test}"
    return Estimate(float(differences.mean()), low, high, n, method, p_value)


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values corrected for their number, so that any below a level keeps the family's error rate at it.

    Nothing is assumed of how the tests depend on each other, as they do where all compare with one baseline.

    Args:
        p_values: (m,) of one family; nan stays nan and is not counted.

    Returns:
        (m,) in the same order: the i-th smallest times m − i + 1, at least the one before it, at most 1.

    Source: Holm, A simple sequentially rejective multiple test procedure (1979).
    """
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    corrected, largest = [math.nan] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def rank_correlation(x: ArrayLike, y: ArrayLike, *, groups: Sequence[Any] | None = None, seed: int = 0) -> Estimate:
    """Spearman's rank correlation, ties at mid-ranks, with a percentile bootstrap interval.

    Args:
        x: (n,) values; a pair with a nan is dropped.
        y: (n,) values.
        groups: (n,) label of each pair's independent unit, such as its config: whole groups are then
            resampled, and the estimate's n counts groups. None where every pair is independent.
        seed: of the bootstrap.

    Returns:
        The correlation, −1 to 1: nan for a constant input, and without bounds for fewer than 5 units.

    Raises:
        ValueError: if the lengths differ.

    Source: Spearman (1904); Davison and Hinkley, Bootstrap Methods (1997), section 3.8, for groups.
    """
    return _rank_correlation("Spearman rank correlation", (x, y), groups, seed)


def partial_rank_correlation(
    x: ArrayLike, y: ArrayLike, covariates: ArrayLike, *, groups: Sequence[Any] | None = None, seed: int = 0
) -> Estimate:
    """Rank correlation of x and y after the covariates' ranks are regressed out of both.

    It removes what is linear in the covariates' ranks and no more: a covariate that acts in a bend, or that
    was measured with error, still confounds.

    Args:
        x: (n,) values; an observation with a nan anywhere is dropped.
        y: (n,) values.
        covariates: (n,) or (n, k), what to hold; a categorical one as indicator columns.
        groups: (n,) label of each observation's independent unit, or None where every one is independent.
        seed: of the bootstrap.

    Returns:
        The partial correlation, −1 to 1: nan where nothing of x or y is left, without bounds for fewer than 5
        units.

    Raises:
        ValueError: if the lengths differ.
    """
    held = _as_columns(covariates)
    name = f"partial rank correlation given {len(held)} covariate{'s' if len(held) != 1 else ''}"
    return _rank_correlation(name, (x, y, *held), groups, seed)


def mediation(
    treatment: ArrayLike,
    mediator: ArrayLike,
    outcome: ArrayLike,
    covariates: ArrayLike | None = None,
    *,
    groups: Sequence[Any] | None = None,
    seed: int = 0,
) -> Mediation:
    """Linear mediation by the product of coefficients, with percentile bootstrap intervals.

    Two least-squares fits: mediator = a·treatment + covariates, and outcome = direct·treatment + b·mediator +
    covariates. The indirect effect is a·b, the total effect direct + a·b.

    This is causal only if, given the covariates, nothing unmeasured moves both treatment and mediator,
    treatment and outcome, or mediator and outcome (a randomised treatment gives the first two, never the
    third); if the treatment moves no such common cause of mediator and outcome; if effects are linear and the
    treatment leaves the mediator's effect as it is; and if the mediator comes before the outcome and is
    measured without error. Without that it splits an association, and says nothing of what an intervention
    would do.

    Args:
        treatment: (n,) values; an observation with a nan anywhere is dropped.
        mediator: (n,) values.
        outcome: (n,) values.
        covariates: (n,) or (n, k), what to hold, or None.
        groups: (n,) label of each observation's independent unit, or None where every one is independent.
        seed: of the bootstrap.

    Returns:
        Direct, indirect and total effect, in units of the outcome per unit of the treatment: nan where
        treatment or mediator do not vary given the rest, without bounds for fewer than 5 units.

    Raises:
        ValueError: if the lengths differ.

    Source: Baron and Kenny (1986) for the product; Preacher and Hayes (2008) for its bootstrap.
    """
    held = () if covariates is None else _as_columns(covariates)
    columns, units = complete([treatment, mediator, outcome, *held], groups)
    n = unit_count(units)
    observed, values = np.full(3, math.nan), np.empty((0, 3))
    if n:
        observed = mediation_effects(columns, np.ones((1, len(columns))))[0]
    if n >= MIN_UNITS:
        values = resampled(mediation_effects, columns, units, seed)
    direct, indirect, total = (
        _percentile_estimate(f"{name} effect of linear mediation", observed[i], values[:, i], n, groups)
        for i, name in enumerate(("direct", "indirect", "total"))
    )
    return Mediation(direct, indirect, total)


def _student_interval(values: Floats, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Student's t interval of the mean of independent values (n,), n ≥ 2."""
    mean, n = float(values.mean()), len(values)
    half = float(stats.t.ppf((1 + confidence) / 2, n - 1)) * float(values.std(ddof=1)) / math.sqrt(n)
    return mean - half, mean + half


def _interval_of_differences(differences: Floats, generator: np.random.Generator) -> tuple[float, float, str]:
    """The bounds of the mean of differences (n,), and how they were found or why they are not there, in words."""
    n = len(differences)
    if n < MIN_PAIRS:
        return math.nan, math.nan, f"no interval for n < {MIN_PAIRS}"
    if without_spread(differences):
        return math.nan, math.nan, "no interval, all differences are equal"
    if n < MIN_STUDENTISED:
        return *_student_interval(differences), f"Student t interval as n < {MIN_STUDENTISED}, {CONFIDENCE}"
    low, high = studentised_interval(differences, generator)
    missing = [side for side, bound in (("lower", low), ("upper", high)) if math.isinf(bound)]
    words = f"studentised bootstrap interval, {CONFIDENCE}, {RESAMPLES} resamples"
    words += f", no {' and no '.join(missing)} bound: too many of the differences are equal" if missing else ""
    return low, high, words


def _as_columns(covariates: ArrayLike) -> tuple[Floats, ...]:
    array = np.asarray(covariates, dtype=np.float64)
    if array.ndim not in (1, 2):
        raise ValueError(f"covariates are of shape (n,) or (n, k), not {array.shape}")
    return tuple(array[:, None].T) if array.ndim == 1 else tuple(array.T)


def _rank_correlation(name: str, inputs: Sequence[ArrayLike], groups: Sequence[Any] | None, seed: int) -> Estimate:
    columns, units = complete(inputs, groups)
    n = unit_count(units)
    observed, values = math.nan, np.empty(0)
    if n:
        observed = partial_rank_correlations(columns, np.ones((1, len(columns))))[0, 0]
    if n >= MIN_UNITS and not math.isnan(observed):
        values = resampled(partial_rank_correlations, columns, units, seed)[:, 0]
    return _percentile_estimate(name, observed, values, n, groups)


def _percentile_estimate(name: str, observed: float, values: Floats, n: int, groups: Sequence[Any] | None) -> Estimate:
    """The estimate from its resamples (B,), telling why where there is no value or no interval."""
    value = float(observed)
    if math.isnan(value):
        return Estimate(value, math.nan, math.nan, n, f"{name}: undefined, an input does not vary")
    unit = "observations" if groups is None else "groups"
    if n < MIN_UNITS:
        return Estimate(value, math.nan, math.nan, n, f"{name}, no interval for fewer than {MIN_UNITS} {unit}")
    low, high, share = percentile_interval(values)
    undefined = "" if share == 1 else f", {1 - share:.2%} of them undefined and left out"
    bootstrap = f"percentile bootstrap over {unit}, {CONFIDENCE}, {RESAMPLES} resamples{undefined}"
    return Estimate(value, low, high, n, f"{name}, {bootstrap}")


def _sign_flip_test(differences: Floats, generator: np.random.Generator) -> tuple[float, str]:
    """Two-sided p of the mean under random signs, and the test in words."""
    n = len(differences)
    exact = n <= EXACT_PAIRS
    if exact:
        bits = np.arange(2**n)[:, None] >> np.arange(n)
        signs = 1.0 - 2.0 * (bits & 1)
    else:
        signs = generator.choice([-1.0, 1.0], size=(SIGN_FLIPS, n))
    observed = abs(differences.sum())
    # Sums that are equal on paper differ in their last bits by the order of addition.
    tolerance = 1e-12 * np.abs(differences).sum()
    extreme = int(np.count_nonzero(np.abs(signs @ differences) >= observed - tolerance))
    if exact:
        return extreme / 2**n, f"exact sign-flip permutation test over {2**n} flips"
    return (extreme + 1) / (SIGN_FLIPS + 1), f"sign-flip permutation test, {SIGN_FLIPS} seeded flips"
