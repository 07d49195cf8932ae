"""Bootstrap over whole independent units, with all resamples computed at once as counts.

Notation: n observations with k columns in g independent units, B resamples. A resample is represented by a count for
each observation, `counts` (B, n). A statistic over all resamples then takes a few array operations, without sorting the
data again. A statistic is a function (columns (n, k), counts (B, n)) -> (B, m).
"""

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.distributions import normal_tail, t_quantile

Floats: TypeAlias = NDArray[np.float64]
Units: TypeAlias = NDArray[np.intp]
Statistic: TypeAlias = Callable[[Floats, Floats], Floats]

RESAMPLES = 4000
CONFIDENCE = 0.95
# If conditioning leaves less than this fraction of a column's variance, the remainder is rounding error.
DEGENERATE = 1e-10
# Limits memory for one block of resamples to a few times 16 MB.
_BLOCK_ELEMENTS = 2_000_000


def complete(columns: Sequence[ArrayLike], groups: Sequence[Any] | None = None) -> tuple[Floats, Units]:
    """Drop observations with a missing value, and number the units of the remaining observations.

    Args:
        columns: k arrays (n,); an observation with nan or infinity in any array is dropped.
        groups: (n,) unit label for each observation, or None if each is a separate unit.

    Returns:
        Stacked columns (n', k), and units (n',) numbered 0 … g−1.

    Raises:
        ValueError: if the inputs are not one-dimensional with equal lengths.
    """
    arrays = [np.asarray(column, dtype=np.float64) for column in columns]
    shapes = [array.shape for array in arrays] + ([] if groups is None else [(len(groups),)])
    if len(set(shapes)) != 1 or len(shapes[0]) != 1:
        raise ValueError(f"give one-dimensional inputs of equal length, not of shapes {shapes}")
    table = np.column_stack(arrays)
    kept = np.isfinite(table).all(axis=1)
    labels = np.arange(len(table)) if groups is None else np.asarray(groups)
    _, units = np.unique(labels[kept], return_inverse=True)
    return table[kept], units


def unit_count(units: Units) -> int:
    """Return the number of independent units."""
    return int(units.max()) + 1 if len(units) else 0


def unit_means(column: Floats, units: Units) -> Floats:
    """Return the mean (n,) over each observation's unit for a column (n,)."""
    return np.asarray((np.bincount(units, weights=column) / np.bincount(units))[units])


def resampled(statistic: Statistic, columns: Floats, units: Units, seed: int) -> Floats:
    """Compute the statistic (B, m) for every resample of whole units."""
    blocks = [statistic(columns, counts) for counts in _draws(len(columns), columns.shape[1], units, seed)]
    return np.concatenate(blocks)


def _draws(n: int, width: int, units: Units, seed: int) -> Iterator[Floats]:
    generator = np.random.default_rng(seed)
    n_units = unit_count(units)
    block = max(1, _BLOCK_ELEMENTS // (n * width))
    for start in range(0, RESAMPLES, block):
        size = min(block, RESAMPLES - start)
        drawn = generator.multinomial(n_units, np.full(n_units, 1 / n_units), size=size)
        yield drawn[:, units].astype(np.float64)


def percentile_interval(values: Floats) -> tuple[float, float, float]:
    """Compute the percentile interval for one statistic (B,), and the fraction of resamples with a finite value.

    Bounds are nan if fewer than half of the resamples have a finite value.
    """
    defined = values[np.isfinite(values)]
    share = len(defined) / len(values) if len(values) else 0.0
    if share < 0.5:
        return math.nan, math.nan, share
    low, high = np.quantile(defined, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
    return float(low), float(high), share


def expanded_interval(values: Floats, units: int, freedom: int) -> tuple[float, float]:
    """Compute a percentile interval for one statistic (B,), widened for small samples and for fitted parameters.

    A plain percentile interval is too short for few units. For a correlation within 12 configs with 5 seeds each, it
    covered in 0.89 of 400 simulated studies instead of 0.95; the expanded interval covered in 0.96. The quantiles are
    moved outwards in two ways: Student's t replaces the normal distribution, and a factor corrects the lower variance
    in small resamples.

    Args:
        values: values from the resamples.
        units: number of independent units, n.
        freedom: n minus the number of fitted parameters.

    Returns:
        Bounds; nan if at most half of the resamples have a finite value, or if `freedom` is below 1.

    Source: Hesterberg, What Teachers Should Know About the Bootstrap (2015), section 5.3.
    """
    defined = values[np.isfinite(values)]
    if 2 * len(defined) <= len(values) or freedom < 1:
        return math.nan, math.nan
    reach = math.sqrt(units / freedom) * t_quantile((1 + CONFIDENCE) / 2, freedom)
    tail = normal_tail(reach)
    low, high = np.quantile(defined, [tail, 1 - tail])
    return float(low), float(high)


def line_band(columns: Floats, units: Units, grid: Floats, seed: int) -> tuple[Floats, Floats]:
    """Compute a pointwise band around a least-squares line, by the expanded interval over units.

    The percentile interval covered a planted line in 0.88 of 200 simulated searches with 12 configs, and in 0.91 with
    24. The expanded interval covered in 0.94 and 0.94.

    Args:
        columns: (n, 2) values of x and y.
        units: independent units by row; see `complete`.
        grid: (m,) points on x.
        seed: random seed for the resamples.

    Returns:
        Lower and upper ends, each (m,).
    """
    lines, n = resampled(lambda each, counts: line_values(each, counts, grid), columns, units, seed), unit_count(units)
    low, high = np.array([expanded_interval(at, n, n - 2) for at in lines.T]).T
    return low, high


def without_spread(values: Floats) -> bool:
    """Check whether values (n,) are all equal up to rounding, like differences of equal decimals."""
    return bool(values.std(ddof=1) <= 1e-12 * math.sqrt(len(values)) * np.abs(values).max())


def studentised_interval(values: Floats, generator: np.random.Generator) -> tuple[float, float]:
    """Compute the bootstrap-t interval for the mean of independent values (n,); nan if they have no spread.

    A bound is infinite if the fraction of resamples with one repeated value exceeds the bound's tail probability. This
    happens with few values, or with many equal ones.

    Source: Efron and Tibshirani, An Introduction to the Bootstrap (1993), section 12.5.
    """
    if without_spread(values):
        return math.nan, math.nan
    n = len(values)
    mean, error = values.mean(), values.std(ddof=1) / math.sqrt(n)
    draws = values[generator.integers(0, n, size=(RESAMPLES, n))]
    shifts, errors = draws.mean(axis=1) - mean, draws.std(axis=1, ddof=1) / math.sqrt(n)
    # A resample with one repeated value has no spread. The ratio is infinite, with the sign of the shift.
    infinite = np.where(np.abs(shifts) > 1e-12 * error, np.copysign(np.inf, shifts), 0.0)
    ratios = np.divide(shifts, errors, out=infinite, where=errors > 1e-12 * error)
    # Order statistics are used, because interpolation between two infinities gives nan.
    low, high = np.quantile(ratios, [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2], method="inverted_cdf")
    return float(mean - high * error), float(mean - low * error)


def partial_rank_correlations(columns: Floats, counts: Floats) -> Floats:
    """Compute the rank correlation between the first two columns given the others' ranks, for every resample.

    Args:
        columns: (n, k) with k ≥ 2.
        counts: (B, n) number of draws per observation.

    Returns:
        (B, 1); nan if the other columns explain all variance in either column.
    """
    ranks = np.stack([_mid_ranks(column, counts) for column in columns.T], axis=-1)
    weights = counts / counts.sum(axis=1, keepdims=True)
    centred = ranks - np.einsum("bn,bnk->bk", weights, ranks)[:, None, :]
    return _correlations_left(np.einsum("bn,bni,bnj->bij", weights, centred, centred))


def partial_correlations(columns: Floats, counts: Floats) -> Floats:
    """Compute the correlation between the first two columns given the others, without ranking, for every resample.

    Args:
        columns: (n, k) with k ≥ 2.
        counts: (B, n) number of draws per observation.

    Returns:
        (B, 1); nan if the other columns explain all variance in either column.
    """
    return _correlations_left(_covariances(_standardised(columns), counts))


def mediation_effects(columns: Floats, counts: Floats) -> Floats:
    """Compute the direct, indirect and total effect for every resample.

    Args:
        columns: (n, k): treatment, mediator, outcome, covariates.
        counts: (B, n) number of draws per observation.

    Returns:
        (B, 3) in outcome units per treatment unit; nan if the data do not define an effect.
    """
    spread = columns.std(axis=0)
    covariance = _covariances(_standardised(columns), counts)
    left = _given_rest(covariance, 3)
    treated = left[:, 0, 0]
    has_treatment = _defined(treated, covariance[:, 0, 0])
    safe = np.where(has_treatment, treated, 1.0)
    total, to_mediator = left[:, 0, 2] / safe, left[:, 0, 1] / safe
    mediator_left = left[:, 1, 1] - to_mediator * left[:, 0, 1]
    has_mediator = has_treatment & _defined(mediator_left, covariance[:, 1, 1])
    from_mediator = (left[:, 1, 2] - to_mediator * left[:, 0, 2]) / np.where(has_mediator, mediator_left, 1.0)
    indirect = np.where(has_mediator, to_mediator * from_mediator, math.nan)
    total = np.where(has_treatment, total, math.nan)
    unit = spread[2] / spread[0] if spread[0] > 0 else math.nan
    return np.stack([total - indirect, indirect, total], axis=1) * unit


def line_values(columns: Floats, counts: Floats, at: Floats) -> Floats:
    """Evaluate the least-squares line for the second column on the first at points (m,), for every resample (B, m)."""
    centre = columns[:, 0].mean()
    x, y = columns[:, 0] - centre, columns[:, 1]
    weights = counts / counts.sum(axis=1, keepdims=True)
    mean_x, mean_y = weights @ x, weights @ y
    variance = weights @ (x * x) - mean_x**2
    covariance = weights @ (x * y) - mean_x * mean_y
    defined = variance > DEGENERATE * x.var()
    slope = np.where(defined, covariance / np.where(defined, variance, 1.0), math.nan)
    return mean_y[:, None] + slope[:, None] * (at[None, :] - centre - mean_x[:, None])


def _mid_ranks(column: Floats, counts: Floats) -> Floats:
    """Compute each observation's mid-rank (B, n) within each resample, up to a constant."""
    _, ranks = np.unique(column, return_inverse=True)
    order = np.argsort(ranks, kind="stable")
    starts = np.searchsorted(ranks[order], np.arange(ranks.max() + 1))
    drawn = np.add.reduceat(counts[:, order], starts, axis=1)
    return np.asarray((np.cumsum(drawn, axis=1) - drawn / 2)[:, ranks])


def _covariances(columns: Floats, counts: Floats) -> Floats:
    """Compute the column covariance matrices (B, k, k) under the counts."""
    n, k = columns.shape
    weights = counts / counts.sum(axis=1, keepdims=True)
    means = weights @ columns
    products = (columns[:, :, None] * columns[:, None, :]).reshape(n, k * k)
    return (weights @ products).reshape(-1, k, k) - means[:, :, None] * means[:, None, :]


def _standardised(columns: Floats) -> Floats:
    """Standardise columns, so a rate like 1e-3 and a width like 256 have the same numerical scale."""
    spread = columns.std(axis=0)
    return np.asarray((columns - columns.mean(axis=0)) / np.where(spread > 0, spread, 1.0))


def _correlations_left(covariance: Floats) -> Floats:
    """Correlate the first two columns after a linear fit on the others, as (B, 1); nan if no variance is left."""
    left = _given_rest(covariance, 2)
    first, second = left[:, 0, 0], left[:, 1, 1]
    defined = _defined(first, covariance[:, 0, 0]) & _defined(second, covariance[:, 1, 1])
    scale = np.sqrt(np.where(defined, first * second, 1.0))
    correlation = np.clip(left[:, 0, 1] / scale, -1.0, 1.0)
    return np.where(defined, correlation, math.nan)[:, None]


def _given_rest(covariance: Floats, m: int) -> Floats:
    """Compute the covariance (B, m, m) between the first m columns after a linear fit on the others."""
    first, cross, rest = covariance[:, :m, :m], covariance[:, :m, m:], covariance[:, m:, m:]
    if rest.shape[-1] == 0:
        return first
    # The pseudo-inverse allows constant or collinear covariates within a resample.
    return first - cross @ np.linalg.pinv(rest, rcond=DEGENERATE, hermitian=True) @ cross.transpose(0, 2, 1)


def _defined(left: Floats, before: Floats) -> NDArray[np.bool_]:
    return (left > DEGENERATE * before) & (before > 0)
