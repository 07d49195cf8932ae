"""Trimmed mean, for scores with a few collapsed seeds.

If training collapses on some seeds, the scores have two clusters, and the mean with Student's t describes neither. In
most small samples no seed collapses. The interval is then too short for a population with some collapses. The trimmed
mean leaves out the lowest and the highest fifth. It estimates the population's trimmed mean, which hardly depends on
collapses in up to a fifth of the seeds.

Coverage in 20,000 simulated studies with scores 0.82 ± 0.01, a share of them collapsed to 0.1; each interval for the
population value of the same estimate:

        collapsed     trimmed mean, n = 5, 10, 16, 29    mean, n = 5, 10, 16, 29
        none          0.93  0.93  0.94  0.95             0.95  0.95  0.95  0.95
        5%            0.93  0.94  0.94  0.95             0.23  0.41  0.56  0.77
        10%           0.94  0.94  0.95  0.95             0.41  0.65  0.81  0.95
        20%           0.94  0.94  0.94  0.94             0.67  0.89  0.86  0.94
        30%           0.45  0.61  0.75  0.88             0.83  0.96  0.97  0.95

If more than a fifth collapse, the trimmed mean contains collapses as well, and only the collapsed share describes
the config.

Source: Tukey and McLaughlin (1963); Yuen, The two-sample trimmed t for unequal population variances (1974).
"""

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.distributions import t_quantile
from analysis.statistics.estimates import Estimate
from analysis.statistics.resampling import CONFIDENCE, complete

TRIMMED: Final = 0.2
# With fewer values, a fifth is less than one value.
MIN_TRIMMED: Final = 5


def trimmed_mean(values: ArrayLike) -> Estimate:
    """Average independent values without the lowest and the highest fifth, with an interval from Winsorised variance.

    Args:
        values: (n,) one value per independent unit, such as a seed; nan is dropped.

    Returns:
        Trimmed mean; n counts all values. It is nan for n < 5, because a fifth is then less than one value.
    """
    kept = np.sort(complete([values])[0][:, 0])
    n, cut = len(kept), int(TRIMMED * len(kept))
    name = f"mean without the lowest and the highest {TRIMMED:.0%}"
    if n < MIN_TRIMMED:
        return Estimate(math.nan, math.nan, math.nan, n, f"{name}: undefined for n < {MIN_TRIMMED}")
    value = float(kept[cut : n - cut].mean())
    winsorised = np.clip(kept, kept[cut], kept[n - cut - 1])
    error = float(winsorised.std(ddof=1)) / ((1 - 2 * cut / n) * math.sqrt(n))
    half = t_quantile((1 + CONFIDENCE) / 2, n - 2 * cut - 1) * error
    return Estimate(value, value - half, value + half, n, f"{name}, Yuen's t interval, {CONFIDENCE}")
