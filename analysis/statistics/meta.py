"""Random-effects mean over the estimates from several studies, with heterogeneity and a prediction interval.

Notation: k studies with estimates y_i and standard errors s_i,

    y_i = mean + u_i + e_i,   u_i ~ N(0, τ²), e_i ~ N(0, s_i²).

τ² is Paule and Mandel's: at this value the weighted squares of the estimates around their mean equal k − 1. The
interval for the mean is Hartung and Knapp's with k − 1 degrees of freedom. It takes the spread from the estimates
themselves. It does not rest on the standard errors, which are uncertain if a study has few seeds. The spread is limited
from below by the standard errors. The prediction interval is for the effect in a further study. It answers whether a
method will help elsewhere.

Coverage in 2,000 simulated sets with k studies and 5 seeds each. Standard deviations differ by a factor of up to 3
between studies; heterogeneity is the ratio between τ and the average standard error. The common mean is weighted by
1 / s_i² with a normal interval, as if effects were equal and standard errors known:

        k     τ / s    mean    further study    common mean
        3     0        0.99    1.00             0.81
        3     1        0.98    1.00             0.63
        3     2        0.97    0.99             0.41
        5     0        0.97    0.98             0.78
        5     1        0.94    0.90             0.57
        5     2        0.94    0.93             0.38
        10    0        0.93    0.95             0.74
        10    1        0.93    0.90             0.53
        10    2        0.95    0.94             0.34

Source: Paule and Mandel (1982); Hartung and Knapp (2001); Röver, Knapp and Friede (2015) for the lower limit on the
spread; Higgins, Thompson and Spiegelhalter (2009) for the prediction; Higgins and Thompson (2002) for I².
"""

import math
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import ArrayLike
from scipy import optimize

from analysis.statistics.distributions import chi2_tail, t_quantile, t_tail
from analysis.statistics.estimates import Estimate
from analysis.statistics.resampling import CONFIDENCE, Floats

_LEAST_STUDIES: Final = 2
_LEAST_FOR_PREDICTION: Final = 3


class RandomEffects(NamedTuple):
    """Mean over studies, with the differences between studies.

    Args:
        mean: random-effects mean; n counts studies. The p-value is Hartung and Knapp's.
        tau: standard deviation of the effect between studies, in estimate units.
        heterogeneity: I², the fraction of variation between estimates in excess of their standard errors, 0 to 1.
        heterogeneity_p: p-value for equal effects, by Cochran's Q.
        prediction: interval for the effect in a further study, around the mean; without bounds for fewer than 3.
    """

    mean: Estimate
    tau: float
    heterogeneity: float
    heterogeneity_p: float
    prediction: Estimate


def random_effects_mean(estimates: ArrayLike, errors: ArrayLike) -> RandomEffects:
    """Combine the estimates from several studies.

    Args:
        estimates: (k,) one estimate per study.
        errors: (k,) standard errors, above 0.

    Returns:
        Random-effects mean; everything is nan for fewer than 2 studies.

    Raises:
        ValueError: if the lengths differ, an input is not finite, or a standard error is not positive.
    """
    y, s = (np.asarray(each, dtype=np.float64) for each in (estimates, errors))
    if y.ndim != 1 or y.shape != s.shape:
        raise ValueError(f"give one standard error for each estimate, not shapes {y.shape} and {s.shape}")
    if not (np.isfinite(y).all() and np.isfinite(s).all() and (s > 0).all()):
        raise ValueError("estimates and standard errors must be finite, and errors above 0: leave out other studies")
    k = len(y)
    name = "random-effects mean over studies"
    if k < _LEAST_STUDIES:
        nothing = Estimate(
            math.nan, math.nan, math.nan, k, f"{name}: undefined for fewer than {_LEAST_STUDIES} studies"
        )
        return RandomEffects(nothing, math.nan, math.nan, math.nan, nothing)
    q = _spread(y, s**2, 0.0)
    variance = paule_mandel(y, s**2)
    weights = 1 / (s**2 + variance)
    value = float(weights @ y / weights.sum())
    scale = max(1.0, _spread(y, s**2, variance) / (k - 1))
    error = math.sqrt(scale / float(weights.sum()))
    half = t_quantile((1 + CONFIDENCE) / 2, k - 1) * error
    p_value = 2 * t_tail(abs(value) / error, k - 1)
    method = f"{name}, Paule-Mandel variance, Hartung-Knapp interval, {CONFIDENCE}"
    mean = Estimate(value, value - half, value + half, k, method, p_value)
    return RandomEffects(
        mean,
        math.sqrt(variance),
        max(0.0, (q - (k - 1)) / q) if q > 0 else 0.0,
        chi2_tail(q, k - 1),
        _prediction(value, error, variance, k),
    )


def paule_mandel(estimates: Floats, variances: Floats) -> float:
    """Compute the variance τ² between studies, at least 0, with weighted squares equal to k − 1."""
    k = len(estimates)
    if _spread(estimates, variances, 0.0) <= k - 1:
        return 0.0
    high = float(((estimates - estimates.mean()) ** 2).sum())  # the weighted squares are at most k − 1 here
    return float(optimize.brentq(lambda at: _spread(estimates, variances, at) - (k - 1), 0.0, high, xtol=1e-300))


def _spread(estimates: Floats, variances: Floats, between: float) -> float:
    """Compute the squares around the weighted mean of the estimates, weighted by inverse variance."""
    weights = 1 / (variances + between)
    mean = weights @ estimates / weights.sum()
    return float(weights @ (estimates - mean) ** 2)


def _prediction(value: float, error: float, variance: float, k: int) -> Estimate:
    name = "effect in a further study"
    if k < _LEAST_FOR_PREDICTION:
        why = f"no prediction interval for fewer than {_LEAST_FOR_PREDICTION} studies"
        return Estimate(value, math.nan, math.nan, k, f"{name}, {why}")
    half = t_quantile((1 + CONFIDENCE) / 2, k - 2) * math.sqrt(variance + error**2)
    return Estimate(value, value - half, value + half, k, f"{name}, prediction interval, {CONFIDENCE}")
