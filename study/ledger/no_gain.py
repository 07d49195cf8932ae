"""End of a search without gain, from the trials in the journal; see `study.plan.until`."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, NamedTuple, Protocol

from study.ledger.front import Measured, values_of
from study.plan.plan import StudyPlan
from study.plan.until import LEAST, PATIENCE
from trainables.display.numbers import format_number
from trainables.spec.quantities import QUANTITIES


class Ended(Measured, Protocol):
    """Search trial with the attributes needed here; implemented by `study.ledger.entry.TrialEntry`."""

    trial_id: str
    ended: float | None

    @property
    def score(self) -> float:
        """Objective value at the last epoch."""


class NoGain(NamedTuple):
    """End of a search without gain.

    Args:
        trials: number of ended trials at this time, without failed ones.
        best: best trial, not surpassed by the last `PATIENCE` ended trials; None if no trial has a value.
    """

    trials: int
    best: Ended | None


def find_no_gain(plan: StudyPlan, searched: Iterable[Ended]) -> NoGain | None:
    """Return when a search has ended without gain, or None if it has not.

    Trials count in the order in which they ended. A trial stopped early, or beyond a limit, is no gain. A failed trial
    does not count. Trials still running at the end of the search change nothing.

    Args:
        plan: study plan.
        searched: search trials, in any order.
    """
    if plan.until is None:
        return None
    ended = sorted((each for each in searched if each.ended is not None), key=lambda each: each.ended or 0.0)
    counted = [each for each in ended if each.status in ("finished", "pruned")]
    best, best_at, best_score = None, 1, -math.inf
    for number, each in enumerate(counted, start=1):
        if _is_valid(plan, each) and each.score > best_score:
            best, best_at, best_score = each, number, each.score
        if number >= LEAST and number - best_at >= PATIENCE:
            return NoGain(number, best)
    return None


def _is_valid(plan: StudyPlan, trial: Ended) -> bool:
    """Return whether a trial has a value, and is within the limits."""
    if trial.status != "finished" or not math.isfinite(trial.score):
        return False
    found = values_of(trial, [QUANTITIES[limit.name] for limit in plan.limits])
    return all(found[limit.name] <= limit.value for limit in plan.limits)


def no_gain_text(plan: StudyPlan, searched: Iterable[Ended]) -> str | None:
    """Return a sentence on a search that ended without gain, or None for any other search."""
    found = find_no_gain(plan, searched)
    if found is None:
        return None
    best = "no trial has a value" if found.best is None else (
        f"the last {PATIENCE} have not surpassed {found.best.name} ({plan.objective} {format_number(found.best.score)})"
    )  # fmt: skip
    return f"The search ended without gain after {found.trials} of at most {plan.trials} trials: {best}."


def no_gain_notes(plan: StudyPlan, searched: Iterable[Ended]) -> list[str]:
    """Return a sentence on whether the search ended without gain, for tables and reports; none without the rule."""
    if plan.until is None:
        return []
    return [no_gain_text(plan, searched) or f"The search did not end early by --until {plan.until}."]


def no_gain_summary(plan: StudyPlan, searched: Iterable[Ended]) -> Mapping[str, Any]:
    """Return whether and how the search ended early, for `summary.json`; empty without the rule."""
    if plan.until is None:
        return {}
    found = find_no_gain(plan, searched)
    ended = None if found is None else {
        "trials": found.trials, "best": None if found.best is None else found.best.trial_id,
    }  # fmt: skip
    return {"until": {"rule": plan.until, "at_most": plan.trials, "ended": ended}}
