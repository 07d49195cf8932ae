"""Front of a study with several objectives or limits, for `summary.json`, the source for tables and figures."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

from analysis.reading.trials import within_possible
from analysis.statistics.estimates import mean_interval, within_range
from analysis.statistics.pareto import non_dominated
from study.ledger.entry import TrialEntry, by_config
from study.ledger.front import SearchedConfig, searched_configs, values_of
from study.ledger.ledger import StudyLedger
from study.plan.objectives import quantities_of
from study.plan.plan import StudyPlan
from trainables.spec.measures import objective_of
from trainables.spec.quantities import QUANTITIES, Quantity


def pareto_summary(ledger: StudyLedger) -> dict[str, Any] | None:
    """Return the searched configs with their values and the front; None without objectives and limits.

    `values` come from the search, `fresh` from repetitions on fresh seeds, and `confirmed` from a complete
    confirmation, with the dataset's objective on the test split. `is_on_confirmed_front` compares the front's confirmed
    configs by the confirmed means.
    """
    plan = ledger.plan
    if not (plan.objectives or plan.limits):
        return None
    quantities = (QUANTITIES[plan.objective], *(each for each in quantities_of(plan) if each.name != plan.objective))
    epochs = plan.confirm_epochs
    confirmed = _finished(ledger.in_stage("confirm")) if ledger.is_confirmed else {}
    fresh = _finished(ledger.in_stage("replicate"))
    rows = []
    for each in searched_configs(ledger):
        trained = each.config if epochs == each.config.epochs else each.config.model_copy(update={"epochs": epochs})
        rows.append(
            {
                "config_id": each.config.config_id,
                "label": _label(plan, each),
                "fields": {name: getattr(each.config, name) for name in plan.search_space.varied},
                "values": each.values,
                "is_within_limits": each.is_within,
                "is_on_front": each.is_on_front,
                "fresh": _estimates(fresh.get(each.config.config_id, []), quantities, "val"),
                "confirmed": _estimates(confirmed.get(trained.config_id, []), quantities, "test"),
            }
        )
    _mark_confirmed(plan, rows)
    return {
        "objectives": [
            {"name": name, "direction": QUANTITIES[name].direction, "unit": QUANTITIES[name].unit}
            for name in plan.objectives
        ],
        "limits": [{"name": each.name, "value": each.value, "words": each.words} for each in plan.limits],
        "quantities": [each.name for each in quantities],
        "configs": rows,
    }


def pareto_metrics(summary: Mapping[str, Any] | None) -> dict[str, float]:
    """Return the front size and the best value per objective on the front, for MLflow's table of studies."""
    if summary is None:
        return {}
    front = [row for row in summary["configs"] if row["is_on_front"]]
    found = {"front/configs": float(len(front))}
    for objective in summary["objectives"] if front else ():
        values = [row["values"][objective["name"]] for row in front]
        best = max(values) if objective["direction"] == "maximize" else min(values)
        found[f"front/best_{objective['name'].replace('/', '_')}"] = best
    return found


def _finished(entries: Sequence[TrialEntry]) -> dict[str, list[TrialEntry]]:
    return by_config(entry for entry in entries if entry.status == "finished")


def _label(plan: StudyPlan, each: SearchedConfig) -> str:
    return f"{each.name}, {each.config.student}" if len(plan.students) > 1 else each.name


def _estimates(entries: Sequence[TrialEntry], quantities: Sequence[Quantity], split: str) -> dict[str, Any]:
    """Return the mean of each quantity varying with the seed. The first quantity is on the given split."""
    if not entries:
        return {}
    found = {}
    for each in quantities:
        if each.is_of_architecture:
            continue
        values = [values_of(entry, [each])[each.name] for entry in entries]
        name = each.name
        if each is quantities[0]:
            name = objective_of(entries[0].config.dataset, split)
            values = [entry.last.get(name, float("nan")) for entry in entries]
        mean = mean_interval(values)
        estimate = within_range(mean, 0.0, math.inf) if each.name == "gap" else within_possible(mean, name)
        found[name] = estimate.as_json()
    return found


def _mark_confirmed(plan: StudyPlan, rows: list[dict[str, Any]]) -> None:
    """Mark whether each confirmed config of the front is also on the front of the confirmed means."""
    known = [row for row in rows if row["is_on_front"] and row["confirmed"]]
    tested = objective_of(plan.base.dataset, "test")
    points = []
    for row in known:
        means = {name: _or_nan(found["value"]) for name, found in row["confirmed"].items()}
        values = {**row["values"], **means, plan.objective: means[tested]}
        points.append([values[name] for name in plan.objectives])
    best = non_dominated(points, [QUANTITIES[name].direction == "maximize" for name in plan.objectives])
    for row in rows:
        row["is_on_confirmed_front"] = None
    for row, is_best in zip(known, best, strict=True):
        row["is_on_confirmed_front"] = is_best


def _or_nan(value: float | None) -> float:
    return math.nan if value is None else value
