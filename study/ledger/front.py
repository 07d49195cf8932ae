"""Pareto front of a search with several objectives or limits.

A config has one value per objective: the mean over the finished search trials with this config. This is one trial
unless the search proposed the config again, so all searched configs are compared on the same footing. A config is not
on the front if a mean exceeds a limit or a value is missing. The values selected the front, so they are biased towards
better results. Fresh seeds show the size of this bias.

In a study with one objective and limits, all configs within the limits are on the front, because there is one best
config.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from study.plan.objectives import quantities_of
from study.plan.plan import StudyPlan
from study.plan.stages import Stage
from trainables.spec.quantities import QUANTITIES, Quantity
from trainables.spec.trial import TrialConfig


class Measured(Protocol):
    """Trial with measures and the attributes needed here; implemented by `study.ledger.entry.TrialEntry`."""

    config: TrialConfig

    @property
    def facts(self) -> dict[str, float]:
        """Facts recorded once."""

    @property
    def status(self) -> str | None:
        """Final status; None until the trial ends."""

    @property
    def last(self) -> dict[str, float]:
        """Measures at the last epoch."""

    @property
    def name(self) -> str:
        """Readable name."""


class MeasuredTrials(Protocol):
    """Trials of a study; implemented by `study.ledger.ledger.StudyLedger`."""

    plan: StudyPlan

    def in_stage(self, stage: Stage, /) -> Sequence[Measured]:
        """Return the trials of a stage, oldest first."""


@dataclass(frozen=True)
class SearchedConfig:
    """Searched config with objective values.

    Args:
        config: the config.
        name: readable name of the first trial with this config, without the seed.
        values: means of the study's objectives and limited quantities, by quantity name.
        is_within: whether all values are known and within the limits.
        is_on_front: whether the config is on the front.
    """

    config: TrialConfig
    name: str
    values: dict[str, float]
    is_within: bool
    is_on_front: bool


def values_of(trial: Measured, quantities: Sequence[Quantity]) -> dict[str, float]:
    """Return a trial's quantities by name; NaN for an unknown one."""
    known = {**trial.facts, **trial.last}
    return {each.name: each.value_in(known) for each in quantities}


def searched_configs(ledger: MeasuredTrials) -> list[SearchedConfig]:
    """Return the configs with a finished search trial, oldest first."""
    plan = ledger.plan
    quantities = {each.name: each for each in (QUANTITIES[plan.objective], *quantities_of(plan))}
    trials: dict[str, list[Measured]] = {}
    for entry in ledger.in_stage("search"):
        if entry.status == "finished":
            trials.setdefault(entry.config.config_id, []).append(entry)
    means = {key: _means(own, tuple(quantities.values())) for key, own in trials.items()}
    limits = {each.name: each.value for each in plan.limits}
    within = {
        key: all(math.isfinite(value) and value <= limits.get(name, math.inf) for name, value in values.items())
        for key, values in means.items()
    }
    objectives = plan.objectives
    points = {key: [values[name] for name in objectives] for key, values in means.items() if within[key]}
    maximised = [quantities[name].direction == "maximize" for name in objectives]
    from analysis.statistics.pareto import non_dominated  # SciPy takes a second to import

    best = dict(zip(points, non_dominated(list(points.values()), maximised), strict=True))
    return [
        SearchedConfig(own[0].config, own[0].name.rpartition("-s")[0], means[key], within[key], best.get(key, False))
        for key, own in trials.items()
    ]


def _means(trials: Sequence[Measured], quantities: Sequence[Quantity]) -> dict[str, float]:
    found = [values_of(each, quantities) for each in trials]
    return {each.name: math.fsum(values[each.name] for values in found) / len(found) for each in quantities}


def eligible(ledger: MeasuredTrials) -> frozenset[str] | None:
    """Return the identifiers of configs on the front, or None in a study with neither objectives nor limits.

    Only these configs are repeated and confirmed.
    """
    plan = ledger.plan
    if not (plan.objectives or plan.limits):
        return None
    return frozenset(each.config.config_id for each in searched_configs(ledger) if each.is_on_front)
