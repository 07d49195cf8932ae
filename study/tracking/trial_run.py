"""Content of a trial's MLflow run: params, tags and metrics.

Every setting read by the trial is a param, so it can be an axis in charts and in comparisons across experiments. Costs
known before the first step do not change during a trial, so they are no metrics. Costs commonly plotted are params, the
others are tags.

Parameters searched on a log scale have a second param with the logarithm (`LOG_PREFIX`), because MLflow's scatter plots
and parallel coordinates have linear axes only.
"""

import math
from collections.abc import Iterable
from typing import Any, Final, get_args

from mlflow.entities import Metric, RunTag

from study.ledger.entry import TrialEntry
from study.plan.plan import StudyPlan
from study.plan.stages import Stage
from trainables.spec.measures import COST_FACTS, DEPLOY_FACTS, SHARPNESS_GAP
from trainables.spec.methods import METHOD_SPECS, method_spec
from trainables.spec.searchable import ALWAYS_READ, FIXED_IN_A_STUDY
from trainables.spec.trial import SEED_FIELDS

LOG_PREFIX: Final = "log10/"
# Reported in every epoch, and known before the first one.
_KNOWN_MEASURES: Final = (
    "cost/trainable_parameters",
    "cost/adapter_parameters",
    "cost/workers",
    "cost/teacher_training_seconds",
)
KNOWN_COSTS: Final = frozenset((*COST_FACTS, *DEPLOY_FACTS, *_KNOWN_MEASURES))
# Few, because MLflow's Compare page opens with the first three differing params in alphabetical order.
COST_AXES: Final = ("cost/step_flops", "cost/student_parameters", *DEPLOY_FACTS)

RUN_COLOUR: Final = "mlflow.runColor"
GROUP: Final = "group"
# Okabe-Ito colours, as in the figures. The many search trials are pale.
_COLOURS: Final[dict[Stage, str]] = {
    "search": "#9ecae1",
    "tune": "#c7b3d6",
    "control": "#e69f00",
    "replicate": "#0072b2",
    "confirm": "#d55e00",
}
_GROUP_WORDS: Final[dict[Stage, str]] = {
    "control": "control",
    "replicate": "replicates",
    "confirm": "confirmed",
}
SINGLE: Final = tuple(stage for stage in get_args(Stage) if stage not in _GROUP_WORDS)  # stages with single seeds


def trial_params(plan: StudyPlan, entry: TrialEntry) -> dict[str, Any]:
    """Return every setting read by the trial, and the logarithms of the settings searched on a log scale."""
    config = entry.config
    read = config.method_spec.fields | ALWAYS_READ | FIXED_IN_A_STUDY.keys()
    left_out = set() if config.teacher_digest else {"teacher_digest"}
    settings = {name: each for name, each in config.model_dump(mode="json").items() if name in read - left_out}
    logs = {
        f"{LOG_PREFIX}{name}": round(math.log10(settings[name]), 6)
        for name in log_searched(plan)
        if settings.get(name, 0) > 0
    }
    return {"replicate": entry.replicate, **settings, **logs}


def log_searched(plan: StudyPlan) -> tuple[str, ...]:
    """Return the names of parameters searched on a log scale."""
    found = (each.name for search in plan.searches for each in search.parameters if each.log)
    return tuple(dict.fromkeys(found))


def study_params(plan: StudyPlan) -> dict[str, Any]:
    """Return the settings common to all trials in a study, without settings not read by any method in the study."""
    config = plan.example_config.model_dump(mode="json")
    left_out = SEED_FIELDS | {"method"} | _unread_fields(plan) | set(plan.differing)
    left_out |= set() if plan.base.teacher_digest else {"teacher_digest"}
    return {name: each for name, each in config.items() if name not in left_out}


def _unread_fields(plan: StudyPlan) -> set[str]:
    used = [dict(method.fields) for method in plan.compared]
    used += [{"method": name} for name in plan.controls]
    used += [] if plan.compared else [{"method": plan.base.method, "adapter": plan.base.adapter}]
    entries = [method_spec(str(each["method"]), adapter=bool(each.get("adapter"))) for each in used]
    everywhere = (method_spec(method, adapter=True) for method in (*METHOD_SPECS, *plan.own_methods))
    return {field for entry in everywhere for field in entry.fields} - {f for entry in entries for f in entry.fields}


def trial_tags(plan: StudyPlan, entry: TrialEntry, parent_id: str) -> dict[str, str]:
    """Return the tags for a new run.

    Args:
        plan: the study.
        entry: the trial.
        parent_id: run of the study.
    """
    group = group_of(entry)
    grouped = {} if group is None else {GROUP: group}
    return {
        "mlflow.parentRunId": parent_id,
        "kind": "trial",
        "trial_id": entry.trial_id,
        "study": plan.name,
        "study_id": plan.study_id,
        "stage": entry.stage,
        "config_id": entry.config_id,
        RUN_COLOUR: _COLOURS[entry.stage],
        **grouped,
    }


def group_of(entry: TrialEntry) -> str | None:
    """Return a readable name for config and stage, shared by all seeds, or None for a stage with single seeds.

    A config's confirmed seeds and other seeds are separate groups, because the other seeds chose the config.
    """
    if entry.stage not in _GROUP_WORDS:
        return None
    name = entry.name.removesuffix(f"-s{entry.replicate}")
    return f"{name}, {_GROUP_WORDS[entry.stage]}"


def known_costs(entry: TrialEntry) -> tuple[dict[str, str], list[RunTag]]:
    """Return the costs known before the first step: those to plot as params, and the others as tags."""
    first = entry.epochs[min(entry.epochs)] if entry.epochs else {}
    known = {name: first[name] for name in _KNOWN_MEASURES if name in first} | entry.facts
    params = {name: _exact(known[name]) for name in COST_AXES if name in known}
    tags = [RunTag(name, _exact(each)) for name, each in known.items() if name in KNOWN_COSTS - set(COST_AXES)]
    return params, tags


def _exact(number: float) -> str:
    return str(int(number)) if number.is_integer() else repr(number)


def epoch_metrics(entry: TrialEntry, epochs: Iterable[int], objective: str) -> list[Metric]:
    """Return the measures at the given epochs as metrics.

    The objective and the sharpness gap come first, because MLflow's Compare page opens with the first metric.

    Args:
        entry: the trial.
        epochs: numbers of reported epochs.
        objective: measure maximised by the study.
    """
    ranks = {objective: 0, SHARPNESS_GAP: 1}
    return [
        Metric(name, value, int(entry.epoch_times[epoch] * 1000), epoch)
        for epoch in epochs
        for name, value in sorted(entry.epochs[epoch].items(), key=lambda each: ranks.get(each[0], 2))
        if name not in _KNOWN_MEASURES
        # Skip costs unchanged since the previous epoch, because every row takes MLflow time.
        and not (name.startswith("cost/") and entry.epochs.get(epoch - 1, {}).get(name) == value)
    ]
