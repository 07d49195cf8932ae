"""Number of trials per search: equal for all, limited by equal FLOPs, or until there is no gain.

With `budget="flops"`, a search may spend as many FLOPs as `trials` cross-entropy trials with the same student. The
method cost is the fact `cost/step_flops_to_ce` from the first trial to report it in the search: the FLOPs per step,
without passes for storing teacher outputs, which many trials share. Until then the search continues with one trial at a
time. The numbers follow from the journal alone, so a resumed study finds the same ones.
"""

from collections.abc import Iterable
from typing import Final, Protocol

from study.ledger.no_gain import Ended, find_no_gain
from study.plan.plan import StudyPlan

COST: Final = "cost/step_flops_to_ce"


class Searched(Ended, Protocol):
    """Search trial with the attributes needed here; implemented by `study.ledger.entry.TrialEntry`."""

    @property
    def search(self) -> str | None:
        """Search name, if recorded."""


def search_targets(plan: StudyPlan, searched: Iterable[Searched]) -> dict[str, int | None]:
    """Return the number of trials per search, by search name; None while a search waits for the trial cost.

    Args:
        plan: study plan.
        searched: trials from all searches so far, oldest first.
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
    """Return the total number of search trials. While it is unknown, return the maximum."""
    if plan.budget == "trials" and plan.until is None:
        return plan.searched
    targets = search_targets(plan, searched).values()
    return sum(plan.trials if target is None else target for target in targets)
