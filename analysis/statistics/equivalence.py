"""Test whether a difference is too small to matter, by two one-sided tests (TOST) against a smallest effect.

A non-significant difference does not show equality. Equivalence is a separate claim, and needs a smallest effect δ
stated before the data are seen. Two one-sided t tests reject the hypotheses mean ≤ −δ and mean ≥ +δ. If both
reject, the difference is smaller than δ in either direction.

A result is called equivalent only if both tests reject and the 95% interval shown next to it lies within ±δ. The table
gives the fraction of simulated studies with this claim: with a true difference of +δ, where the claim is false, and
without a difference, where it is true. 20,000 studies for the tests and 1,000 for both conditions, with differences of
standard deviation δ:

        n     differences    false, tests   false, both    true, tests   true, both
        5     normal         0.05           0.02           0.29          0.15
        10    normal         0.05           0.02           0.80          0.55
        5     exponential    0.16           0.12           0.52          0.31
        10    exponential    0.14           0.04           0.84          0.51

Source: Schuirmann, A comparison of the two one-sided tests procedure (1987).
"""

import math
from typing import Final

import numpy as np
from numpy.typing import ArrayLike

from analysis.statistics.distributions import t_tail
from analysis.statistics.resampling import complete, without_spread

# Half a percentage point of accuracy: about the difference between good methods in published distillation tables.
SMALLEST_EFFECT: Final = 0.005


def equivalence_p(differences: ArrayLike, smallest_effect: float) -> float:
    """Compute the p-value of two one-sided t tests for a mean difference within ± the smallest effect.

    Args:
        differences: (n,) one difference per independent unit, such as a seed; nan is dropped.
        smallest_effect: δ in the unit of the differences, above 0.

    Returns:
        The larger p-value; nan for fewer than two differences, or if all are equal.

    Raises:
        ValueError: if the smallest effect is not positive.
    """
    if not smallest_effect > 0:
        raise ValueError(f"the smallest effect is above 0, not {smallest_effect}; 0.005 is half a point of accuracy")
    kept = complete([differences])[0][:, 0]
    n = len(kept)
    if n < 2 or without_spread(kept):
        return math.nan
    error = float(kept.std(ddof=1)) / math.sqrt(n)
    return t_tail((smallest_effect - abs(float(np.mean(kept)))) / error, n - 1)
