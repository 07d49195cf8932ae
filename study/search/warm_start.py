"""Trials of earlier studies, converted for a sampler; see `study.plan.warm_start`."""

from collections.abc import Mapping
from typing import Any

import optuna
from optuna.trial import FixedTrial, FrozenTrial, TrialState

from study.ledger.entry import TrialEntry
from study.plan.methods import Search
from study.plan.plan import StudyPlan
from study.plan.warm_start import earlier_trials
from study.search.objectives import attributes_of, outcome_of
from trainables.spec.trial import TrialConfig


def optuna_trials(plan: StudyPlan, search: Search, deployment: Mapping[str, Mapping[str, float]]) -> list[FrozenTrial]:
    """Return the trials of earlier studies for the sampler, with values.

    Args:
        plan: plan of the study starting from these trials.
        search: search of the study.
        deployment: `DEPLOY_FACTS` of each student, measured by this study. Trials without a value for an objective are
            left out.
    """
    found = []
    for each in earlier_trials(plan.warm_start, plan.directory):
        entry = _entry(plan, each)
        entry.facts |= deployment.get(entry.config.student, {})
        outcome = outcome_of(plan, entry)
        if outcome.state == TrialState.FAIL:
            continue
        fixed = FixedTrial({p.name: getattr(entry.config, p.name) for p in search.parameters if p.role != "fixed"})
        search.suggest(fixed)
        attributes = attributes_of(outcome.constraints)
        if plan.sampler == "nsga2":  # the sampler takes parents only from trials with a generation
            attributes[optuna.samplers.NSGAIISampler._get_generation_key()] = 0
        found.append(
            optuna.trial.create_trial(
                state=outcome.state,
                values=outcome.values,
                params=fixed.params,
                distributions=fixed.distributions,
                system_attrs=attributes,
                intermediate_values=dict(outcome.reported),
            )
        )
    return found


def _entry(plan: StudyPlan, trial: Mapping[str, Any]) -> TrialEntry:
    config = TrialConfig(**trial["config"])
    entry = TrialEntry(trial["trial_id"], 0, "search", 0, config, 0.0, facts=dict(trial["facts"]))
    entry.epochs = {int(epoch): {plan.objective: score} for epoch, score in trial["scores"].items()}
    entry.epochs[trial["last_epoch"]] = dict(trial["last"])
    entry.status = trial["status"]
    return entry
