"""Comparison of methods over seeds and over searches, for studies with several searches per method.

Two searches for one method differ by chance. Intervals over seeds alone hold for the found configs. Intervals over
seeds and searches hold for the method including the search (`analysis.statistics.over_searches`).
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

import pyarrow as pa

from analysis.reading.scores import ByReplicate, score_table, scores_by_method, shared_replicates
from analysis.reading.trials import BASELINE, CONFIRM, REPEATED, Split
from analysis.statistics.equivalence import SMALLEST_EFFECT
from analysis.statistics.estimates import Estimate
from analysis.statistics.over_searches import (
    MIN_SEEDS,
    SearchSpread,
    between_searches,
    difference_over_searches,
    mean_over_searches,
)
from trainables.display.numbers import NETWORK_PLACES, counted, format_number

LEAD: Final = "Between searches of one method"


class NestedScores:
    """Method scores by search and replicate.

    Args:
        scores: scores by config and replicate.
        averaged: configs by method, one for each search.

    Attributes:
        spread: spread between searches, pooled over methods.
        pooled: number of methods with several searches.
    """

    def __init__(self, scores: Mapping[str, ByReplicate], averaged: Mapping[str, Sequence[str]]) -> None:
        self._of = {name: [scores.get(each, {}) for each in configs] for name, configs in averaged.items()}
        tables = {name: score_table(own, shared_replicates(own)) for name, own in self._of.items()}
        self._tables = tables
        self.spread = between_searches(list(tables.values()))
        self.pooled = sum(len(each) > 1 for each in tables.values())

    def mean(self, name: str) -> Estimate:
        """Average a method over searches and the replicates shared by all configs."""
        return mean_over_searches(self._tables[name], self.spread)

    def difference(self, name: str, against: str) -> Estimate:
        """Compare two methods over searches and the replicates shared by all configs on both sides."""
        shared = shared_replicates([*self._of[name], *self._of[against]])
        own, other = (score_table(self._of[each], shared) for each in (name, against))
        return difference_over_searches(own, other, self.spread, smallest_effect=SMALLEST_EFFECT)


@dataclass(frozen=True)
class SearchComparison:
    """Differences between methods and a baseline, over seeds and searches.

    Args:
        spread: spread between searches of one method.
        differences: estimate by method; n counts seeds.
        searches: number of configs per method, at least 2 for each.
    """

    spread: SearchSpread
    differences: dict[str, Estimate]
    searches: dict[str, int]

    @property
    def note(self) -> str:
        """Description in a sentence or two."""
        return spread_note(self.spread, sum(each > 1 for each in self.searches.values()))


def compare_over_searches(
    trials: pa.Table, searches: int, *, baseline: str = BASELINE, confirmed: bool = False
) -> SearchComparison | None:
    """Compare methods with a baseline over seeds and searches.

    Args:
        trials: trials from a study with tuned methods.
        searches: number of searches per method. A method with fewer configs found one config more than once.
        baseline: method to compare all others with.
        confirmed: use the confirmation and the test split.

    Returns:
        None if there is one search per method, or the baseline has no trial on shared seeds.
    """
    if searches < 2:
        return None
    stages: tuple[str, ...] = (CONFIRM,) if confirmed else REPEATED
    split: Split = "test" if confirmed else "validation"
    found = scores_by_method(trials, stages, split)
    averaged = {name: of_each_search([*configs], searches) for name, configs in found.items()}
    nested = NestedScores({key: own for configs in found.values() for key, own in configs.items()}, averaged)
    if baseline not in found or not nested.spread.freedom:
        return None
    differences = {name: nested.difference(name, baseline) for name in found if name != baseline}
    known = {name: each for name, each in differences.items() if each.n >= MIN_SEEDS}
    return SearchComparison(nested.spread, known, {name: len(each) for name, each in averaged.items()})


def of_each_search(configs: list[str], searches: int) -> list[str]:
    """Repeat configs found by several searches, for one config per search."""
    return [configs[place % len(configs)] for place in range(max(searches, len(configs)))]


def spread_note(spread: SearchSpread, methods: int) -> str:
    """Describe the spread between searches for one method in two sentences.

    Args:
        spread: pooled spread.
        methods: number of methods with several searches.

    Returns:
        The sentences; empty if no method has two searches on two seeds.
    """
    if not spread.freedom:
        return ""
    return (
        f"{LEAD}, mean scores differ by a standard deviation of "
        f"{format_number(math.sqrt(spread.variance), NETWORK_PLACES)} beyond seeds (pooled over "
        f"{counted(methods, 'method')}). Intervals over seeds hold for the configs found; those over seeds and "
        "searches for the methods with their searches."
    )


def method_label(method: str, searches: int) -> str:
    """Return a method's name in tables, with the number of averaged searches."""
    return method if searches < 2 else f"{method} (mean of {searches} searches)"
