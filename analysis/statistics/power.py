"""Power of a paired comparison: seeds needed for a difference, and the least detectable difference.

Notation: δ is a true mean difference, σ the standard deviation of the paired differences over seeds, n the number of
seeds, and m the number of comparisons in one family.

The formula is for the paired t-test. The tests in this package flip signs instead. For normal differences the two have
nearly the same power, but the p-value from n exact sign flips is a multiple of 2/2ⁿ. The formula therefore uses the
largest multiple up to the level. With few seeds this multiple is 0, and no difference is detectable.

Holm's correction compares the smallest of m p-values with level/m. Power at level/m is therefore the power of the first
step, and a lower bound on the power with Holm's method.

Source: Cohen, Statistical Power Analysis for the Behavioral Sciences (1988), chapter 2, with the noncentral t
distribution instead of the tables.
"""

import itertools
import math
from functools import lru_cache
from typing import Final

import numpy as np
from numpy.typing import NDArray
from scipy import special

from analysis.statistics.distributions import chi2_quantiles, t_quantile
from analysis.statistics.estimates import EXACT_PAIRS
from analysis.statistics.resampling import CONFIDENCE

POWER: Final = 0.8
LEVEL: Final = round(1 - CONFIDENCE, 12)
MOST_SEEDS: Final = 100_000
_QUANTILES: Final = 4000
_HALVINGS: Final = 36


def attainable_level(n: int, *, level: float = LEVEL, tests: int = 1) -> float:
    """Return the largest possible level up to `level` / `tests` for the sign-flip test on n pairs.

    Args:
        n: number of pairs.
        level: two-sided family-wise level, between 0 and 1.
        tests: number of comparisons, at least 1.
    """
    wanted = level / tests
    if n > EXACT_PAIRS:  # the test draws flips, and its p-values have steps of 0.00005
        return wanted
    steps = 2 ** (n - 1)
    return math.floor(wanted * steps + 1e-9) / steps


def fewest_pairs(*, level: float = LEVEL, tests: int = 1) -> int:
    """Return the smallest number of pairs with a sign-flip test that can reach the level at all.

    Args:
        level: two-sided family-wise level.
        tests: number of comparisons, corrected for by Holm's method.
    """
    return next(n for n in itertools.count(2) if attainable_level(n, level=level, tests=tests))


def paired_power(difference: float, spread: float, n: int, *, level: float = LEVEL, tests: int = 1) -> float:
    """Compute the power to show a true difference with n pairs.

    Args:
        difference: true mean difference δ, in the unit of `spread`.
        spread: standard deviation σ of the paired differences, above 0.
        n: number of pairs.
        level: two-sided family-wise level.
        tests: number of comparisons, corrected for by Holm's method.

    Returns:
        Power from 0 to 1; 0 if n pairs cannot reach the level.
    """
    reached = attainable_level(n, level=level, tests=tests)
    if n < 2 or not reached:
        return 0.0
    bound, shift = t_quantile(1 - reached / 2, n - 1), abs(difference) / spread * math.sqrt(n)
    scaled = bound * _relative_spreads(n - 1)
    return float(np.mean(special.ndtr(shift - scaled) + special.ndtr(-shift - scaled)))


def seeds_needed(
    difference: float, spread: float, *, power: float = POWER, level: float = LEVEL, tests: int = 1
) -> int | None:
    """Return the smallest number of pairs to show a true difference with the given power.

    Args:
        difference: true mean difference δ, not 0.
        spread: standard deviation σ of the paired differences; 0 if pairs do not differ.
        power: wanted probability, between 0 and 1.
        level: two-sided family-wise level.
        tests: number of comparisons, corrected for by Holm's method.

    Returns:
        Number of pairs; None above `MOST_SEEDS`.

    Raises:
        ValueError: the difference is 0, or a probability is outside (0, 1).
    """
    _check(power, level)
    if not difference or not math.isfinite(difference):
        raise ValueError(f"a difference of {difference:g} needs no number of seeds: give one other than 0")
    spread = max(spread, 1e-12 * abs(difference))

    def enough(n: int) -> bool:
        return paired_power(difference, spread, n, level=level, tests=tests) >= power

    # Power grows with n, except for the steps in the exact test.
    few = next((n for n in range(2, EXACT_PAIRS + 1) if enough(n)), None)
    if few is not None:
        return few
    if not enough(MOST_SEEDS):
        return None
    low, high = EXACT_PAIRS, MOST_SEEDS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if enough(middle) else (middle, high)
    return high


def least_detectable(spread: float, n: int, *, power: float = POWER, level: float = LEVEL, tests: int = 1) -> float:
    """Return the smallest true difference detectable from n pairs with the given power.

    Args:
        spread: standard deviation σ of the paired differences.
        n: number of pairs.
        power: wanted probability, between 0 and 1.
        level: two-sided family-wise level.
        tests: number of comparisons, corrected for by Holm's method.

    Returns:
        Difference in the unit of `spread`; infinite if n pairs can show none, nan without a spread.

    Raises:
        ValueError: a probability is outside (0, 1).
    """
    _check(power, level)
    if math.isnan(spread):
        return math.nan
    if n < 2 or not attainable_level(n, level=level, tests=tests):
        return math.inf

    return spread * _least_shift(n, power, level, tests) / math.sqrt(n)


@lru_cache(maxsize=256)
def _least_shift(n: int, power: float, level: float, tests: int) -> float:
    """Return the smallest detectable √n·δ/σ, the same for every spread, to a part in 2³⁶."""

    def is_enough(shift: float) -> bool:
        return paired_power(shift / math.sqrt(n), 1.0, n, level=level, tests=tests) >= power

    low, high = 0.0, 1.0
    if is_enough(low):
        return low
    while not is_enough(high):
        low, high = high, 2 * high
    for _ in range(_HALVINGS):  # SciPy's root finder takes longer to import than a report spends on power
        middle = (low + high) / 2
        low, high = (low, middle) if is_enough(middle) else (middle, high)
    return high


@lru_cache(maxsize=64)
def _relative_spreads(freedom: int) -> NDArray[np.float64]:
    """Return equally likely ratios of estimated to true spread, at the midpoints of `_QUANTILES` steps.

    The mean over them integrates the noncentral t distribution. SciPy's own function returns nan for some large shifts.
    """
    middles = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    return np.asarray(np.sqrt(chi2_quantiles(middles, freedom) / freedom), dtype=np.float64)


def _check(power: float, level: float) -> None:
    for name, value in (("power", power), ("level", level)):
        if not 0 < value < 1:
            raise ValueError(f"{name} lies between 0 and 1, not at {value:g}")
