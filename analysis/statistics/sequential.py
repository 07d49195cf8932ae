"""Group-sequential comparison of paired differences: stop each comparison when the available seeds decide it.

Each comparison is examined after n₁ < n₂ < … < n_K pairs, fixed in advance. At look k the comparison stops with

- *better* or *worse*, if the paired t-test for a zero mean has p ≤ a_k;
- *small*, if the one-sided t-tests for means δ and −δ both have p ≤ b_k, in the direction of zero.

Otherwise it continues, and it stays open after the last look. The nominal levels a_k spend the comparison's two-sided
level α over the looks. The levels b_k spend the error 1 − power in the same way. Stopping for *small* never raises the
error of *better* and *worse*, because the levels a_k do not rely on this stopping.

The levels are exact for normal differences with known variance. For estimated variances the same nominal levels are
applied to the t-test. Simulated errors are in `tests/analysis/statistics/test_sequential.py`.

Source: Lan and DeMets, Discrete sequential boundaries for clinical trials (1983), with their Pocock-type spending
function; Jennison and Turnbull, Group Sequential Methods (2000), sections 4.4 (t-tests at nominal levels) and 19.2
(integration over the looks). Bonferroni's correction over comparisons lets each comparison stop by itself.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Final, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray
from scipy import integrate, optimize, special

from analysis.statistics.distributions import t_tail
from analysis.statistics.power import LEVEL, POWER

Decision = Literal["better", "worse", "small"]

FIRST_LOOK: Final = 6
_GROWTH: Final = 1.3
_GRID: Final = 801
_WIDEST: Final = 9.0  # half-width of the score grid, in standard errors


@dataclass(frozen=True)
class SequentialPlan:
    """Looks and nominal levels for a group of comparisons.

    Args:
        detect: relevant difference δ.
        looks: numbers of pairs at the looks, ascending.
        tests: number of comparisons.
        levels: two-sided nominal level a_k at each look.
        small_levels: one-sided nominal level b_k at each look.
    """

    detect: float
    looks: tuple[int, ...]
    tests: int
    levels: tuple[float, ...]
    small_levels: tuple[float, ...]

    def decide(self, differences: ArrayLike, look: int) -> Decision | None:
        """Decide a comparison at one look, or return None to continue.

        Args:
            differences: (n,) paired differences so far; nan is dropped.
            look: look number, from 0.
        """
        values = np.asarray(differences, dtype=np.float64)
        values = values[np.isfinite(values)]
        n = len(values)
        if n < 2:
            return None
        mean, error = float(values.mean()), float(values.std(ddof=1)) / math.sqrt(n)
        error = max(error, 1e-12)
        if 2 * t_tail(abs(mean) / error, n - 1) <= self.levels[look]:
            return "better" if mean > 0 else "worse"
        nearest = (self.detect - abs(mean)) / error
        return "small" if t_tail(nearest, n - 1) <= self.small_levels[look] else None


def plan_looks(detect: float, most: int, tests: int, *, level: float = LEVEL, power: float = POWER) -> SequentialPlan:
    """Plan the looks for a group of comparisons.

    Args:
        detect: relevant difference, above 0.
        most: largest number of pairs.
        tests: number of comparisons, which share the level equally.
        level: two-sided family-wise level.
        power: probability not to stop with *small* if the true difference is `detect`.

    Raises:
        ValueError: the difference is not above 0, or `most` is less than `FIRST_LOOK`.
    """
    if not detect > 0 or not math.isfinite(detect):
        raise ValueError(f"the difference to detect is above 0, not {detect:g}")
    if most < FIRST_LOOK:
        raise ValueError(f"sequential looks need at least {FIRST_LOOK} pairs, not {most}")
    looks = [FIRST_LOOK]
    while looks[-1] < most:
        looks.append(min(most, max(looks[-1] + 1, round(looks[-1] * _GROWTH))))
    if len(looks) > 2 and looks[-1] - looks[-2] < looks[-2] - looks[-3]:
        del looks[-2]  # the last step would be short
    fractions = tuple(look / most for look in looks)
    levels = spent_levels(fractions, level / tests)
    small = tuple(each / 2 for each in spent_levels(fractions, min(0.999, 2 * (1 - power))))
    return SequentialPlan(detect, tuple(looks), tests, levels, small)


@lru_cache(maxsize=64)
def spent_levels(fractions: Sequence[float], level: float) -> tuple[float, ...]:
    """Return the two-sided nominal level at each look, for the given level over all looks together.

    Args:
        fractions: (K,) fraction of the largest number of pairs at each look, ascending to 1.
        level: two-sided level over all looks, between 0 and 1.
    """
    found: list[float] = []
    spent = earlier = 0.0
    # Density of the score √t·Z on a grid, before any bound was crossed. At t = 0 it is a point mass at 0.
    points, density = np.zeros(1), np.ones(1)
    for fraction in fractions:
        target, step = level * math.log(1 + (math.e - 1) * fraction), fraction - earlier
        bound = float(
            optimize.brentq(_excess, 0.0, 40.0, args=(target - spent, density, points, fraction, step), xtol=1e-10)
        )
        found.append(2 * float(special.ndtr(-bound)))
        edge = min(bound, _WIDEST) * math.sqrt(fraction)
        grid = np.linspace(-edge, edge, _GRID)
        kernel = np.exp(-((grid[:, None] - points) ** 2) / (2 * step)) / math.sqrt(2 * math.pi * step)
        density, points = np.asarray(_integral(kernel * density, points)), grid
        spent, earlier = target, fraction
    return tuple(found)


def _excess(
    bound: float, target: float, density: NDArray[np.float64], points: NDArray[np.float64], fraction: float, step: float
) -> float:
    """Return the probability of crossing ± bound at this look, minus the target."""
    edge, spread = bound * math.sqrt(fraction), math.sqrt(step)
    beyond = special.ndtr((-edge - points) / spread) + special.ndtr((points - edge) / spread)
    return float(_integral(density * beyond, points)) - target


def _integral(values: NDArray[np.float64], points: NDArray[np.float64]) -> NDArray[np.float64]:
    """Integrate values (…, P) over the points, or return the value at a single point."""
    return np.asarray(values[..., 0] if len(points) == 1 else integrate.trapezoid(values, points, axis=-1))
