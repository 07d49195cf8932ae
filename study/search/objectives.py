"""Values and constraints of an ended trial, as reported to Optuna."""

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import optuna
from optuna.trial import TrialState

from study.ledger.entry import TrialEntry
from study.ledger.front import values_of
from study.plan.plan import StudyPlan
from study.search.samplers import sampler_outcome
from trainables.spec.quantities import QUANTITIES


class OptunaOutcome(NamedTuple):
    """Trial outcome for Optuna.

    Args:
        state: final state.
        values: value of each objective; None unless the trial is complete.
        constraints: how far each limited quantity is above the limit, as a share of the limit; 0 or less within it.
        reported: values of the objective by epoch. Only a study with one objective can report them.
    """

    state: TrialState
    values: list[float] | None
    constraints: Mapping[str, float]
    reported: Mapping[int, float]


def create_optuna_study(plan: StudyPlan) -> optuna.Study:
    """Return an Optuna study with the directions for a study's objectives."""
    if not plan.objectives:
        return optuna.create_study(direction="maximize")
    return optuna.create_study(directions=[QUANTITIES[name].direction for name in plan.objectives])


def outcome_of(plan: StudyPlan, entry: TrialEntry) -> OptunaOutcome:
    """Return an ended trial's outcome.

    A finished trial without a value for an objective or a limited quantity counts as failed.
    """
    assert entry.status is not None
    state, value = sampler_outcome(plan.sampler, entry.status, entry.scores)
    if not (plan.objectives or plan.limits):
        # Optuna accepts no value for a pruned trial, and uses the last reported one.
        return OptunaOutcome(state, None if value is None or state == TrialState.FAIL else [value], {}, entry.scores)
    objectives, limited = (
        values_of(entry, [QUANTITIES[name] for name in names])
        for names in (plan.objectives or (plan.objective,), [each.name for each in plan.limits])
    )
    if state != TrialState.COMPLETE or not all(map(math.isfinite, (*objectives.values(), *limited.values()))):
        return OptunaOutcome(TrialState.FAIL, None, {}, {})
    constraints = {each.name: limited[each.name] / each.value - 1 for each in plan.limits}
    return OptunaOutcome(state, list(objectives.values()), constraints, {} if plan.objectives else entry.scores)


def attributes_of(constraints: Mapping[str, float]) -> dict[str, Any]:
    """Return constraints as system attributes for a trial, in the format of `optuna.Trial.set_constraint`."""
    return {f"constraints:{name}": value for name, value in constraints.items()}
