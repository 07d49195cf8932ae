"""Number of trials of each search: equal for all, as many as equal FLOPs pay for, or until there is no gain.

With `budget="flops"`, a search may spend as many FLOPs as `trials` trials of cross-entropy on the same student. The
cost of a method is the fact `cost/step_flops_to_ce` of the search's first trial that reported it: the FLOPs of a step,
without passes for storing teacher outputs, which many trials share. Until then the search continues with one trial at a
time. The numbers follow from the journal alone, so a resumed study finds the same ones.
"""

from collections.abc import Iterable
from typing import Final, Protocol

from study.ledger.no_gain import Ended, find_no_gain
from study.plan.plan import StudyPlan

COST: Final = "cost/step_flops_to_ce"


class Searched(Ended, Protocol):
    """Trial of a search, as far as it is read here; implemented by `study.ledger.entry.TrialEntry`."""

    @property
    def search(self) -> str | None:
        """Name of the search, if recorded."""


def search_targets(plan: StudyPlan, searched: Iterable[Searched]) -> dict[str, int | None]:
    """Return the number of trials of each search, by name; None while a search waits for the cost of its trials.

    Args:
        plan: study plan.
        searched: trials of all searches so far, oldest first.
    """
    if plan.budget == "trials":
        searched = list(searched)
        has_ended = find_no_gain(plan, searched) is not None  # then no further trial begins
        return {search.name: len(searched) if has_ended else plan.trials for search in plan.searches}
    own: dict[str, list[Searched]] = {search.name: [] for search in plan.searches}
    for entry in searched:
        own[plan.search_of(entry.config, entry.search)].append(entry)
    return {name: _target(plan, entries) for name, entries in own.items()}


def _target(plan: StudyPlan, entries: list[Searched]) -> int | None:
    costs = [entry.facts[COST] for entry in entries if entry.facts.get(COST, 0.0) > 0]
    if costs:
        return max(1, min(plan.trials, int(plan.trials / costs[0] + 1e-9)))
    if any(entry.status is None for entry in entries):
        return None
    return min(plan.trials, len(entries) + 1)  # all failed before their first epoch


def searched_in_all(plan: StudyPlan, searched: Iterable[Searched]) -> int:
    """Return the number of trials of all searches, at most as long as it is unknown."""
    if plan.budget == "trials" and plan.until is None:
        return plan.searched
    targets = search_targets(plan, searched).values()
    return sum(plan.trials if target is None else target for target in targets)
