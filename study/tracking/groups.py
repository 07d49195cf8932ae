"""Mean and interval over a config's seeds, logged as metrics to the run of each seed.

MLflow's page groups runs and shows a group's mean, but no interval. All runs in a group have the same bounds, so the
group mean shown on the page equals the bound itself. The numbers equal those in the result table.
"""

import math
from collections.abc import Iterable
from typing import Final, NamedTuple

from analysis.reading.trials import within_possible
from analysis.statistics.estimates import mean_interval
from study.ledger.entry import TrialEntry
from study.tracking.trial_run import group_of
from trainables.spec.measures import objective_of

_SEEDS: Final = "seeds"


class BoundNames(NamedTuple):
    """Metric names for a mean over seeds.

    Args:
        mean: mean over the finished seeds.
        low: lower bound of the mean's 95% interval.
        high: upper bound of the interval.
        seeds: number of finished seeds.
    """

    mean: str
    low: str
    high: str
    seeds: str


def bound_names(objective: str) -> BoundNames:
    """Return the metric names for a mean over seeds.

    Args:
        objective: averaged measure, e.g. `val/accuracy`.
    """
    split = objective.partition("/")[0]
    return BoundNames(f"{objective}_mean", f"{objective}_low", f"{objective}_high", f"{split}/{_SEEDS}")


def groups_of(entries: Iterable[TrialEntry]) -> dict[str, list[TrialEntry]]:
    """Return the finished trials per repeated config and stage, keyed by group name."""
    found: dict[str, list[TrialEntry]] = {}
    for entry in entries:
        name = group_of(entry)
        if name is not None and entry.status == "finished":
            found.setdefault(name, []).append(entry)
    return found


def group_metrics(entries: list[TrialEntry]) -> dict[str, float]:
    """Return mean, bounds and number of seeds for a group of trials; empty for a single seed.

    Args:
        entries: finished trials of one config on different seeds.
    """
    found: dict[str, float] = {}
    dataset = entries[0].config.dataset
    for split in ("val", "test"):
        measure = objective_of(dataset, split)
        values = [entry.last.get(measure, math.nan) for entry in entries]
        mean = within_possible(mean_interval(values), objective_of(dataset))
        if mean.n >= 2:
            names = bound_names(measure)
            found |= dict(zip(names, (mean.value, mean.low, mean.high, float(mean.n)), strict=True))
    return found
