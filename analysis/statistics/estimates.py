"""Estimates for means, differences and mediation, each with n, an interval and a method description.

Intervals have 95% coverage unless an argument sets another level. Every bootstrap is seeded. Observations with a
missing value are dropped, so `n` is the number of units actually used. A correlation over search trials is exploratory,
because a sampler chose the configs by the same outcome.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.distributions import t_quantile
from analysis.statistics.equivalence import equivalence_p
from analysis.statistics.resampling import (
    CONFIDENCE,
    RESAMPLES,
    Floats,
    complete,
    expanded_interval,
    mediation_effects,
    percentile_interval,
    resampled,
    studentised_interval,
    unit_count,
    without_spread,
)
from trainables.display.numbers import format_in_full

# 2¹⁶ sign flips take about 10 ms. For more pairs, a seeded sample is drawn.
EXACT_PAIRS = 16
SIGN_FLIPS = 20_000
# The median width of Student's t interval is 12 standard deviations for two pairs, 4 for three and 2.8 for four.
MIN_PAIRS = 4
# See `paired_difference`.
MIN_STUDENTISED = 6
# With fewer units, resamples take too few distinct values: an interval would be an artefact of the method.
MIN_UNITS = 5
_CUT: Final = ", cut to"


@dataclass(frozen=True)
class Estimate:
    """Number with an uncertainty.

    Args:
        value: the estimate; nan if the data do not define it.
        low: lower end of the interval; nan if there are too few data for an interval.
        high: upper end of the interval.
        n: number of independent units.
        method: estimator, interval and confidence in words, for a caption or a footnote.
        p_value: two-sided p-value, if the method includes a test.
        smallest_effect: smallest relevant difference, if the estimate was tested for equivalence.
        equivalence_p: p-value of the test for a difference smaller than `smallest_effect`.
    """

    value: float
    low: float
    high: float
    n: int
    method: str
    p_value: float | None = None
    smallest_effect: float | None = None
    equivalence_p: float | None = None

    def is_equivalent(self, corrected_p: float | None = None) -> bool:
        """Return whether the difference is shown to be smaller than `smallest_effect`, by test and interval.

        Args:
            corrected_p: `equivalence_p` corrected for multiple tests. Default: not corrected.
        """
        p_value = self.equivalence_p if corrected_p is None else corrected_p
        if self.smallest_effect is None or p_value is None or not p_value <= 1 - CONFIDENCE:
            return False
        return -self.smallest_effect < self.low and self.high < self.smallest_effect

    def as_json(self) -> dict[str, Any]:
        """Return value, interval, n and method as JSON values; an undefined number is None."""
        numbers = {"value": self.value, "low": self.low, "high": self.high}
        known = {name: number if math.isfinite(number) else None for name, number in numbers.items()}
        return {**known, "n": self.n, "method": self.method}

    def __str__(self) -> str:
        return format_in_full(self)


def expanded_estimate(name: str, value: float, draws: Floats, n: int, freedom: int) -> Estimate:
    """Return a value with the expanded resampling interval.

    Args:
        name: estimator name for `method`.
        value: observed value.
        draws: (B,) values from resamples of whole configs.
        n: number of configs.
        freedom: n minus the number of fitted parameters.
    """
    low, high = expanded_interval(draws, n, freedom)
    method = f"{name}, expanded percentile bootstrap over configs, {CONFIDENCE}, {RESAMPLES} resamples"
    return Estimate(value, low, high, n, method)


class Mediation(NamedTuple):
    """Effect of a treatment, split into a part through a mediator and the rest; total = direct + indirect."""

    direct: Estimate
    indirect: Estimate
    total: Estimate


def mean_interval(values: ArrayLike, *, confidence: float = CONFIDENCE) -> Estimate:
    """Average independent values, with Student's t interval.

    Args:
        values: (n,) one value per independent unit, such as a seed; nan is dropped.
        confidence: interval coverage, between 0 and 1.

    Returns:
        Mean in the unit of the values; bounds are nan for n < 2.

    Raises:
        ValueError: if the confidence is outside (0, 1), or the values are not one-dimensional.
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
    """Clip an estimate's interval to the possible range. An interval from few units can exceed this range.

    Args:
        estimate: estimate with a value inside the range.
        least: smallest possible value.
        most: largest possible value.

    Returns:
        The unchanged estimate if the interval lies in the range or is missing. Otherwise the estimate with clipped
        bounds and a note on the clipping in `method`.
    """
    low, high = (float(np.clip(bound, least, most)) for bound in (estimate.low, estimate.high))
    if math.isnan(low) or (low, high) == (estimate.low, estimate.high):
        return estimate
    interval, separator, test = estimate.method.partition(";")
    words = f"{_CUT} the possible range, {least:g} to {most:g}".replace("-", "−")
    return replace(estimate, low=low, high=high, method=f"{interval}{words}{separator}{test}")


def interval_methods(methods: Iterable[str]) -> list[str]:
    """Return the estimation methods for the note below a table, each once.

    If only some intervals by a method are cut to the possible range, the method is named once, with `some cut to`.
    """
    found = set(methods)
    partly = {each for each in found if _uncut(each) in found - {each}}
    whole = found - partly - {_uncut(each) for each in partly}
    return sorted(whole | {each.replace(_CUT, ", some cut to") for each in partly})


def _uncut(method: str) -> str:
    interval, separator, test = method.partition(";")
    return interval.partition(_CUT)[0] + separator + test


def paired_difference(a: ArrayLike, b: ArrayLike, *, seed: int = 0, smallest_effect: float | None = None) -> Estimate:
    """Estimate the mean difference a − b over pairs, such as two configs on the same replicates.

    The interval is Student's t for 4 and 5 pairs, and the studentised bootstrap from 6 pairs on. The bootstrap handles
    skewed differences at the price of longer intervals. Coverage in 2,500 simulated studies each:

        n         differences   Student's t    bootstrap
        4 to 5    normal        0.94 to 0.96   0.94 to 0.95
        4 to 5    exponential   0.88 to 0.89   0.94 to 0.95
        6 to 16   normal        0.94 to 0.96   0.94 to 0.95
        6 to 16   exponential   0.89 to 0.92   0.93 to 0.95

    For normal differences, the longest tenth of the bootstrap intervals exceeds 30 standard deviations at n = 4, 5.7 at
    5, 3.7 at 6 and 2.5 at 8 (Student's t: 4.7, 3.5, 2.9, 2.2).

    A bootstrap bound is infinite if resamples with a single repeated difference are not rare. This happened in none of
    those studies. For normal differences rounded to a quarter of their standard deviation, it happened in 35%, 4.7%,
    0.4% and 0% of studies with 4, 5, 6 and 8 pairs. For rounding to half a standard deviation it happened in 4.1% and
    0.6% at n = 6 and 8. `method` then names the missing bound.

    The p-value comes from a two-sided sign-flip permutation test on the mean. For n ≤ 16 the test is exact and
    enumerates all 2ⁿ flips. For larger n it uses 20,000 seeded flips and counts the observed one. Under the null
    hypothesis, a difference is as likely as its negative. The p-value cannot fall below 2 / 2ⁿ: with 5 pairs, not below
    0.0625.

    Args:
        a: (n,) first values, in pair order; a pair with nan is dropped.
        b: (n,) second values.
        seed: random seed for the bootstrap and the flips.
        smallest_effect: smallest relevant difference, to test for equivalence (`analysis.statistics.equivalence`).

    Returns:
        Mean difference in the unit of the values, with `p_value`; bounds are nan for n < 4 or equal differences.

    Raises:
        ValueError: if a and b differ in length, or the smallest effect is not positive.

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
    estimate = Estimate(float(differences.mean()), low, high, n, method, p_value)
    if smallest_effect is None:
        return estimate
    tested = equivalence_p(differences, smallest_effect)
    return replace(estimate, smallest_effect=smallest_effect, equivalence_p=None if math.isnan(tested) else tested)


def holm(p_values: Sequence[float]) -> list[float]:
    """Correct p-values for multiple tests by Holm's method, which controls the family-wise error rate.

    The tests may depend on each other, for example if all compare with one baseline.

    Args:
        p_values: (m,) p-values in one family; nan stays nan and is not counted.

    Returns:
        (m,) in the same order: the i-th smallest p-value times m − i + 1, at least the one before it, at most 1.

    Source: Holm, A simple sequentially rejective multiple test procedure (1979).
    """
    order = sorted((i for i, p in enumerate(p_values) if not math.isnan(p)), key=lambda i: p_values[i])
    corrected, largest = [math.nan] * len(p_values), 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(order) - rank) * p_values[i]))
        corrected[i] = largest
    return corrected


def mediation(
    treatment: ArrayLike,
    mediator: ArrayLike,
    outcome: ArrayLike,
    covariates: ArrayLike | None = None,
    *,
    groups: Sequence[Any] | None = None,
    seed: int = 0,
) -> Mediation:
    """Estimate linear mediation by the product of coefficients, with percentile bootstrap intervals.

    Two least-squares fits: mediator = a·treatment + covariates, and outcome = direct·treatment + b·mediator +
    covariates. The indirect effect is a·b, and the total effect is direct + a·b.

    The split is causal only under these assumptions:

    - Given the covariates, nothing unmeasured affects both treatment and mediator, treatment and outcome, or mediator
      and outcome. A randomised treatment ensures the first two, never the third.
    - The treatment affects no common cause of mediator and outcome.
    - Effects are linear, and the treatment does not change the mediator's effect.
    - The mediator precedes the outcome and is measured without error.

    Otherwise the numbers only split an association, and do not predict an intervention's effect.

    Args:
        treatment: (n,) values; an observation with nan anywhere is dropped.
        mediator: (n,) values.
        outcome: (n,) values.
        covariates: (n,) or (n, k), values to hold, or None.
        groups: (n,) label of each observation's independent unit, or None if every one is independent.
        seed: random seed for the bootstrap.

    Returns:
        Direct, indirect and total effect, in outcome units per treatment unit. An effect is nan if
        treatment or mediator does not vary given the rest; bounds are missing for fewer than 5 units.

    Raises:
        ValueError: if the lengths differ.

    Source: Baron and Kenny (1986) for the product; Preacher and Hayes (2008) for the bootstrap.
    """
    held = () if covariates is None else as_columns(covariates)
    columns, units = complete([treatment, mediator, outcome, *held], groups)
    n = unit_count(units)
    observed, values = np.full(3, math.nan), np.empty((0, 3))
    if n:
        observed = mediation_effects(columns, np.ones((1, len(columns))))[0]
    if n >= MIN_UNITS:
        values = resampled(mediation_effects, columns, units, seed)
    unit = "observations" if groups is None else "groups"
    direct, indirect, total = (
        percentile_estimate(f"{name} effect of linear mediation", observed[i], values[:, i], n, unit)
        for i, name in enumerate(("direct", "indirect", "total"))
    )
    return Mediation(direct, indirect, total)


def _student_interval(values: Floats, confidence: float = CONFIDENCE) -> tuple[float, float]:
    """Compute Student's t interval for the mean of independent values (n,), n ≥ 2."""
    mean, n = float(values.mean()), len(values)
    half = t_quantile((1 + confidence) / 2, n - 1) * float(values.std(ddof=1)) / math.sqrt(n)
    return mean - half, mean + half


def _interval_of_differences(differences: Floats, generator: np.random.Generator) -> tuple[float, float, str]:
    """Compute the bounds for the mean difference (n,), with the method or the reason for missing bounds in words."""
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


def as_columns(covariates: ArrayLike) -> tuple[Floats, ...]:
    """Return covariates (n,) or (n, k) as a tuple of columns (n,)."""
    array = np.asarray(covariates, dtype=np.float64)
    if array.ndim not in (1, 2):
        raise ValueError(f"covariates are of shape (n,) or (n, k), not {array.shape}")
    return tuple(array[:, None].T) if array.ndim == 1 else tuple(array.T)


def percentile_estimate(name: str, observed: float, values: Floats, n: int, unit: str) -> Estimate:
    """Return the estimate with the resampling interval (B,); `method` gives the reason if the interval is missing."""
    value = float(observed)
    if math.isnan(value):
        return Estimate(value, math.nan, math.nan, n, f"{name}: undefined, an input does not vary")
    if n < MIN_UNITS:
        return Estimate(value, math.nan, math.nan, n, f"{name}, no interval for fewer than {MIN_UNITS} {unit}")
    low, high, share = percentile_interval(values)
    undefined = "" if share == 1 else f", {1 - share:.2%} of them undefined and left out"
    bootstrap = f"percentile bootstrap over {unit}, {CONFIDENCE}, {RESAMPLES} resamples{undefined}"
    return Estimate(value, low, high, n, f"{name}, {bootstrap}")


def _sign_flip_test(differences: Floats, generator: np.random.Generator) -> tuple[float, str]:
    """Compute the two-sided p-value of the mean under random signs, and describe the test in words."""
    # SciPy's `permutation_test` gives the same exact p-values, unless rounding breaks a tie. SciPy's tolerance is
    # relative to the observed mean: SciPy 1.17.1 gives 0.97 for -0.4, 0.2, -0.8, 1.1, 0.2, -0.3, but their
    # mean is 0, so p is 1.
    n = len(differences)
    exact = n <= EXACT_PAIRS
    if exact:
        bits = np.arange(2**n)[:, None] >> np.arange(n)
        signs = 1.0 - 2.0 * (bits & 1)
    else:
        signs = generator.choice([-1.0, 1.0], size=(SIGN_FLIPS, n))
    observed = abs(differences.sum())
    # Exact ties differ in their last bits, by summation order.
    tolerance = 1e-12 * np.abs(differences).sum()
    extreme = int(np.count_nonzero(np.abs(signs @ differences) >= observed - tolerance))
    if exact:
        return extreme / 2**n, f"exact sign-flip permutation test over {2**n} flips"
    return (extreme + 1) / (SIGN_FLIPS + 1), f"sign-flip permutation test, {SIGN_FLIPS} seeded flips"
