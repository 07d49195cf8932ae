"""Means over the seeds of a config with their intervals, as metrics of each of the seeds' runs.

MLflow's page groups runs and shows a group's mean, but no interval. All runs of a group have the same bounds, so the
mean of the bounds that the page shows for the group is the bound itself. The numbers are those of the result table.
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
    """Names of the metrics of a mean over seeds.

    Args:
        mean: mean over the finished seeds.
        low: lower bound of the 95% interval of the mean.
        high: upper bound of the interval.
        seeds: number of finished seeds.
    """

    mean: str
    low: str
    high: str
    seeds: str


def bound_names(objective: str) -> BoundNames:
    """Return the names of the metrics of a mean over seeds.

    Args:
        objective: measure that is averaged, such as `val/accuracy`.
    """
    split = objective.partition("/")[0]
    return BoundNames(f"{objective}_mean", f"{objective}_low", f"{objective}_high", f"{split}/{_SEEDS}")


def groups_of(entries: Iterable[TrialEntry]) -> dict[str, list[TrialEntry]]:
    """Return the finished trials of each repeated config and stage, by the name of the group."""
    found: dict[str, list[TrialEntry]] = {}
    for entry in entries:
        name = group_of(entry)
        if name is not None and entry.status == "finished":
            found.setdefault(name, []).append(entry)
    return found


def group_metrics(entries: list[TrialEntry]) -> dict[str, float]:
    """Return the mean over the trials of a group with bounds and number of seeds; nothing for a single seed.

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
