"""Comparison of methods over seeds and over searches, for studies that search each method several times.

Notation: method m has R configs, the best of R independent searches, each with a mean score over the same n seeds. Two
searches of one method differ by luck, with standard deviation τ beyond the seeds. Intervals over seeds alone hold for
the configs that were found. Those over seeds and searches hold for the method with its search.

For a method with R configs, the variance between their means estimates τ² + σ²/n, where σ² is the variance over seeds
that the R configs do not share. Subtracting the second term and averaging over methods gives τ².

Source: the method of moments for two-way layouts; Satterthwaite (1946) for the degrees of freedom.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from scipy import stats

from analysis.reading.trials import BASELINE, CONFIRM, REPEATED, method_names, select, trial_scores
from analysis.statistics.estimates import Estimate
from analysis.statistics.resampling import CONFIDENCE
from trainables.display.numbers import NETWORK_PLACES, counted, format_number

LEAD: Final = "Between searches of one method"
_MIN_SEEDS: Final = 2


@dataclass(frozen=True)
class SearchComparison:
    """Differences of methods from a baseline, over seeds and searches.

    Args:
        between: standard deviation τ between searches of one method, beyond seeds.
        freedom: degrees of freedom of τ².
        differences: estimate by method; n counts seeds.
        searches: number of configs per method, at least 2 for each.
    """

    between: float
    freedom: int
    differences: dict[str, Estimate]
    searches: dict[str, int]

    @property
    def note(self) -> str:
        """Description in a sentence or two."""
        methods = sum(each > 1 for each in self.searches.values())
        return (
            f"{LEAD}, mean scores differ by a standard deviation of "
            f"{format_number(self.between, NETWORK_PLACES)} beyond seeds (pooled over {counted(methods, 'method')}). "
            "Intervals over seeds hold for the configs found; those over seeds and searches for the methods with their "
            "searches."
        )


def compare_over_searches(
    trials: pa.Table, searches: int, *, baseline: str = BASELINE, confirmed: bool = False
) -> SearchComparison | None:
    """Compare methods with a baseline over seeds and searches.

    Args:
        trials: trials of a study that compares tuned methods.
        searches: number of searches per method. A method with fewer configs found one of them more than once.
        baseline: method that all others are compared with.
        confirmed: use the confirmation and the test split.

    Returns:
        None if there is one search per method, or the baseline has no trial on shared seeds.
    """
    rows = select(trials, stages=[CONFIRM] if confirmed else REPEATED)
    found = {name: table for name, table in _tables(rows, confirmed).items() if table.shape[1] >= _MIN_SEEDS}
    tables = {name: np.resize(table, (max(searches, len(table)), table.shape[1])) for name, table in found.items()}
    if baseline not in tables or all(len(table) < 2 for table in tables.values()):
        return None
    between, freedom = between_searches(list(tables.values()))
    own = tables[baseline]
    differences = {
        name: _difference(table, own, between, freedom)
        for name, table in tables.items()
        if name != baseline and table.shape[1] == own.shape[1]
    }
    return SearchComparison(
        math.sqrt(between), freedom, differences, {name: len(each) for name, each in tables.items()}
    )


def between_searches(tables: Sequence[NDArray[np.float64]]) -> tuple[float, int]:
    """Estimate the variance between searches of one method, beyond seeds.

    Args:
        tables: (R, n) scores of each method, one row per search, columns paired by seed.

    Returns:
        Variance τ², at least 0, and its degrees of freedom.
    """
    total, freedom = 0.0, 0
    for table in tables:
        searches, seeds = table.shape
        if searches < 2:
            continue
        rest = table - table.mean(axis=1, keepdims=True) - table.mean(axis=0) + table.mean()
        noise = float((rest**2).sum()) / ((searches - 1) * (seeds - 1))
        total += (searches - 1) * (float(table.mean(axis=1).var(ddof=1)) - noise / seeds)
        freedom += searches - 1
    return (max(0.0, total / freedom), freedom) if freedom else (math.nan, 0)


def _difference(table: NDArray[np.float64], baseline: NDArray[np.float64], between: float, freedom: int) -> Estimate:
    differences = table.mean(axis=0) - baseline.mean(axis=0)
    n = len(differences)
    over_seeds = float(differences.var(ddof=1)) / n
    over_searches = between * (1 / len(table) + 1 / len(baseline))
    total = over_seeds + over_searches
    uncertainty = over_seeds**2 / (n - 1) + over_searches**2 / freedom
    quantile = float(stats.t.ppf((1 + CONFIDENCE) / 2, total**2 / uncertainty)) if uncertainty else math.nan
    value, half = float(differences.mean()), quantile * math.sqrt(total)
    method = f"difference of means over searches, Student t interval over seeds and searches, {CONFIDENCE}"
    return Estimate(value, value - half, value + half, n, method)


def _tables(rows: pa.Table, confirmed: bool) -> dict[str, NDArray[np.float64]]:
    """Return the scores of each method as (R, n), over the seeds that all repeated configs share."""
    scores: dict[str, dict[str, dict[int, float]]] = {}
    values = trial_scores(rows, "test" if confirmed else "validation").tolist()
    columns = (method_names(rows), rows["config_id"].to_pylist(), rows["replicate"].to_pylist(), values)
    for name, config_id, replicate, score in zip(*columns, strict=True):
        if math.isfinite(score):
            scores.setdefault(name, {}).setdefault(config_id, {})[replicate] = score
    every = [seeds.keys() for configs in scores.values() for seeds in configs.values()]
    shared = sorted(set.intersection(*map(set, every))) if every else []
    return {
        name: np.array([[seeds[each] for each in shared] for seeds in configs.values()], dtype=np.float64)
        for name, configs in scores.items()
    }
