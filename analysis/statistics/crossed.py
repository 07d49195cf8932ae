"""Mean over a table of seeds by samples, with an interval over both.

Notation: D is (S, N), the difference between two configs on seed s and test sample i. An interval over seeds treats the
test samples as the whole population. For a result about new samples of the same kind too, the samples are a second
source of chance, and both are resampled.

The crossed bootstrap resamples seeds and samples independently, and weights each cell by the product. Given the seed
weights, the mean over N resampled samples is nearly normal, and is drawn from a normal distribution. This needs only
the S × S table of products. The bootstrap variance counts the noise in single cells up to three times (Owen). The
resamples are therefore scaled to the unbiased variance of a two-way table's mean. The quantiles are moved outwards by
Student's t at the degrees of freedom for this variance (Satterthwaite). The result is never narrower than an interval
over seeds alone.

Source: McCullagh, Resampling and exchangeable arrays (2000); Owen, The pigeonhole bootstrap (2007); Searle, Casella and
McCulloch, Variance Components (1992), chapter 4, for the mean squares; Satterthwaite (1946).
"""

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray

from analysis.statistics.distributions import normal_tail, t_quantile
from analysis.statistics.estimates import MIN_PAIRS, Estimate
from analysis.statistics.resampling import CONFIDENCE, RESAMPLES

MIN_SAMPLES = 30


def crossed_mean(table: ArrayLike, *, seed: int = 0) -> Estimate:
    """Average a table of seeds by samples, with a crossed bootstrap interval over seeds and samples.

    Args:
        table: (S, N) values, without nan.
        seed: random seed for the bootstrap.

    Returns:
        Mean in the unit of the values; n counts seeds. Bounds are nan for fewer than 4 seeds or 30 samples.

    Raises:
        ValueError: if the table is not two-dimensional.
    """
    values = np.asarray(table, dtype=np.float64)
    if values.ndim != 2:
        raise ValueError(f"a table of seeds by samples is two-dimensional, not of shape {values.shape}")
    seeds, samples = values.shape
    if not values.size:
        return Estimate(math.nan, math.nan, math.nan, seeds, "mean over seeds and samples: no value")
    name = f"mean over {seeds} seeds and {samples:,} samples"
    if seeds < MIN_PAIRS or samples < MIN_SAMPLES:
        why = f"no interval for fewer than {MIN_PAIRS} seeds or {MIN_SAMPLES} samples"
        return Estimate(float(values.mean()), math.nan, math.nan, seeds, f"{name}, {why}")
    generator = np.random.default_rng(seed)
    weights = generator.multinomial(seeds, np.full(seeds, 1 / seeds), size=RESAMPLES) / seeds
    means, products = values.mean(axis=1), values @ values.T / samples
    centre = weights @ means
    variance = np.maximum(np.einsum("bs,st,bt->b", weights, products, weights) - centre**2, 0.0)
    draws = centre + np.sqrt(variance / samples) * generator.normal(size=RESAMPLES)
    value, (variance_of_mean, freedom) = float(values.mean()), _variance_of_mean(values)
    spread = float(draws.std())
    scaled = value + (draws - draws.mean()) * (math.sqrt(variance_of_mean) / spread if spread else 0.0)
    tail = normal_tail(t_quantile((1 + CONFIDENCE) / 2, freedom))
    low, high = np.quantile(scaled, [tail, 1 - tail])
    method = f"{name}, crossed bootstrap interval over both, {CONFIDENCE}, {RESAMPLES} resamples"
    return Estimate(value, float(low), float(high), seeds, method)


def _variance_of_mean(values: NDArray[np.float64]) -> tuple[float, float]:
    """Estimate the variance of a table's mean (S, N) over both sides, and the degrees of freedom."""
    seeds, samples = values.shape
    rows, columns, mean = values.mean(axis=1), values.mean(axis=0), values.mean()
    of_seeds = samples * float(((rows - mean) ** 2).sum()) / (seeds - 1)
    of_samples = seeds * float(((columns - mean) ** 2).sum()) / (samples - 1)
    rest = float(((values - rows[:, None] - columns + mean) ** 2).sum()) / ((seeds - 1) * (samples - 1))
    total = max(of_seeds + of_samples - rest, of_seeds)
    parts = ((of_seeds, seeds - 1), (of_samples, samples - 1), (rest, (seeds - 1) * (samples - 1)))
    uncertainty = sum(part**2 / freedom for part, freedom in parts)
    freedom = total**2 / uncertainty if uncertainty else seeds - 1
    return total / values.size, max(freedom, seeds - 1.0)
