"""Saved study views on the MLflow experiment page: the repeated configs, and all trials.

MLflow's page stores saved views in experiment tags, as a name and the page state in JSON. A client may write these
tags. The format is not documented. Page versions without support for a view ignore it, and an unknown field falls back
to a default. The notes of the study and of the experiment link to the views.

Both views show only varying settings as columns, and sort by the lower bound of a config's mean over seeds. The first
row is therefore a repeated config, and never the luckiest search seed. The page loads 100 rows at a time, so with this
order the repeated configs are complete before "Load more".
"""

import json
import shlex
import time
from collections.abc import Iterable
from typing import Any, Final
from urllib.parse import quote

from study.plan.plan import StudyPlan
from study.tracking.groups import bound_names
from study.tracking.trial_run import GROUP, LOG_PREFIX, SINGLE, log_searched
from trainables.spec.measures import ACCURACY, SHARPNESS_GAP, objective_in_words, objective_of
from trainables.storage.uris import redact_place

VIEW_TAG: Final = "mlflow.sharedViewState."
VIEW_PREFIX: Final = "pesfkd-"
CONFIGS: Final = "-configs"  # key suffix for the view of configs
_OURS: Final = "study"
# Chart sections and whether they are expanded. The page generates them from the first part of each metric name.
_SECTIONS: Final = {"val": True, "train": False, "cost": False}
_NAME_COLUMN: Final = "attributes.`Run Name`"
# The page's own columns used for order in a view, as named on the page.
_FIRST_COLUMNS: Final = (_NAME_COLUMN, "tags.`stage`", "tags.`status`")
_WIDTHS: Final = {_NAME_COLUMN: 250, "runDateAndNestInfo": 130, "duration": 80, "tags.`stage`": 80, "tags.`status`": 80}
_WIDTH_OF_A_GROUP: Final = 340
_WIDTH_OF_A_LETTER: Final = 8  # pixels, in a heading
_MARGIN: Final = 40
_MOST_AXES: Final = 8
# By default the page puts three charts in a row, which leaves no room for titles on a laptop screen.
_CHARTS_IN_A_ROW: Final = 2
_CHART_HEIGHT: Final = 400  # pixels
# By default the page opens for language-model applications, with runs as evaluations. This selects training.
_TRAINING: Final = "workflowType=machine_learning"
_LOCAL_UI: Final = "http://127.0.0.1:5000"  # address of `mlflow ui`
NOTE_FIGURES: Final = "note"  # subfolder of the figures folder, for the note's figures
# The page draws the note next to a column of facts. A wider picture would cover this column. Markdown cannot scale
# pictures.
NOTE_WIDTH: Final = 700  # pixels
_LETTERS_IN_A_LINE: Final = 84


def view_keys(plan: StudyPlan) -> tuple[str, str]:
    """Return the link keys for the view of all trials and the view of configs."""
    key = f"{VIEW_PREFIX}{plan.study_id}"
    return key, key + CONFIGS


def saved_views(plan: StudyPlan, parent_id: str, collapsed: Iterable[str] = ()) -> dict[str, str]:
    """Return the experiment tags with the views.

    Args:
        plan: the study.
        parent_id: MLflow run of the study.
        collapsed: groups shown as one row each in the view of configs, without the seeds.
    """
    trials, configs = view_keys(plan)
    return {
        f"{VIEW_TAG}{trials}": _saved(plan.name, _trials_state(plan, parent_id)),
        f"{VIEW_TAG}{configs}": _saved(f"{plan.name}: configs", _configs_state(plan, parent_id, collapsed)),
    }


def _saved(name: str, state: dict[str, Any]) -> str:
    now, text = int(time.time() * 1000), json.dumps(state, separators=(",", ":"))
    return json.dumps({"name": name, "createdAt": now, "updatedAt": now, "state": text}, separators=(",", ":"))


def runs_address(plan: StudyPlan, experiment_id: str) -> str:
    """Return the address of a study's trials in MLflow's UI: the saved view of all trials, as a table.

    Without the workflow type, the page opens a view for language-model applications, without data. For a store without
    a server, the address is `mlflow ui` on this machine.

    Args:
        plan: the study.
        experiment_id: experiment of the study.
    """
    is_server = plan.tracking_uri.lower().startswith(("http://", "https://"))
    server = redact_place(plan.tracking_uri).rstrip("/") if is_server else _LOCAL_UI
    return f"{server}/{all_trials(experiment_id, plan.study_id)}"


def all_trials(experiment_id: str, study_id: str, *, charts: bool = False) -> str:
    """Return the address of the view of all trials, relative to the server.

    The server's name in the browser is unknown.

    Args:
        experiment_id: experiment of the study.
        study_id: identifier of the study.
        charts: whether the page opens with charts instead of the table.
    """
    return _view(experiment_id, f"{VIEW_PREFIX}{study_id}") + ("&compareRunsMode=CHART" if charts else "")


def configs_view(experiment_id: str, study_id: str) -> str:
    """Return the address of the view of configs, relative to the server."""
    return _view(experiment_id, f"{VIEW_PREFIX}{study_id}{CONFIGS}")


def _view(experiment_id: str, key: str) -> str:
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={key}&{_TRAINING}"


def links(plan: StudyPlan, experiment_id: str) -> str:
    """Return Markdown links to the views: configs with means over seeds, and all trials in charts and in a table."""
    of = experiment_id, plan.study_id
    charts, table = all_trials(*of, charts=True), all_trials(*of)
    return (
        f"[Configs, mean over seeds]({configs_view(*of)}). [Compare the trials in charts]({charts}) or "
        f"[in a table]({table}). MLflow loads 100 trials at a time, repeated configs first; the report has all of them."
    )


def command_block(command: str) -> str:
    """Return a shell command as a Markdown block, split over lines: a long line would widen the page."""
    lines = [""]
    for word in map(shlex.quote, shlex.split(command)):
        if word.startswith("--") and len(lines[-1]) + len(word) > _LETTERS_IN_A_LINE - 20:
            lines.append(" ")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(["```", " \\\n".join(lines), "```"])


def artifact_links(experiment_id: str, run_id: str, figures: list[tuple[str, str]], *, report: bool) -> str:
    """Return Markdown with a link to the report, followed by the figures.

    Args:
        experiment_id: experiment of the run.
        run_id: run of the study.
        figures: title and path of each figure among the artifacts.
        report: whether `report.html` is among the artifacts.
    """
    parts = (
        [f"[Full report](#/experiments/{experiment_id}/runs/{run_id}/artifacts/report.html?{_TRAINING})"]
        if report
        else []
    )
    parts += [f"![{title}](get-artifact?path={quote(path, safe='')}&run_uuid={run_id})" for title, path in figures]
    return "\n\n".join(parts)


def _trials_state(plan: StudyPlan, parent_id: str) -> dict[str, Any]:
    return _state(plan, f"tags.`mlflow.parentRunId` = '{parent_id}'") | {"runsHiddenMode": "SHOW_ALL"}


def _configs_state(plan: StudyPlan, parent_id: str, collapsed: Iterable[str]) -> dict[str, Any]:
    """Return the page state with one row per repeated config, showing the mean over seeds."""
    single = " and ".join(f"tags.stage != '{stage}'" for stage in SINGLE)  # MLflow has no list of values for tags
    state = _state(plan, f"tags.`mlflow.parentRunId` = '{parent_id}' and {single}")
    columns = [each for each in state["selectedColumns"] if not each.startswith("tags.")]  # a group has no tags
    return state | {
        "selectedColumns": columns,
        "columnOrder": [_NAME_COLUMN, *columns],
        "columnWidths": state["columnWidths"] | {_NAME_COLUMN: _WIDTH_OF_A_GROUP},
        "runsHiddenMode": "SHOW_ALL",
        "groupBy": {"aggregateFunction": "average", "groupByKeys": [{"mode": "tag", "groupByData": GROUP}]},
        "groupsExpanded": {f"tag.{GROUP}.{group}": False for group in collapsed},
        "useGroupedValuesInCharts": True,
    }


def _state(plan: StudyPlan, search_filter: str) -> dict[str, Any]:
    params = [name for name in ("method", *plan.differing) if name != "method" or plan.compared]
    bounds = bound_names(plan.objective)
    tested = objective_of(plan.base.dataset, "test")
    metrics = [plan.objective, bounds.low, bounds.high, bounds.seeds, SHARPNESS_GAP, ACCURACY]
    metrics += [tested] if plan.confirmation is not None else []
    columns = [*_FIRST_COLUMNS[1:], *(_column("metrics", name) for name in dict.fromkeys(metrics))]
    columns += [_column("params", name) for name in params[:_MOST_AXES]]
    widths = {each: _MARGIN + _WIDTH_OF_A_LETTER * (len(each) - each.index("`") - 2) for each in columns}
    return {
        "searchFilter": search_filter,
        "orderByKey": _column("metrics", bounds.low),
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
        "columnOrder": [_NAME_COLUMN, *columns],
        "columnWidths": widths | _WIDTHS,
        "compareRunCharts": _charts(plan, params),
        "compareRunSections": [
            _section(_OURS, plan.name, shown=True) | {"columns": _CHARTS_IN_A_ROW, "cardHeight": _CHART_HEIGHT},
            *(_section(name, name, shown=shown) for name, shown in _SECTIONS.items()),
        ],
        "isAccordionReordered": True,  # else the page sorts this section among the others
        "hideEmptyCharts": True,
    }


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _section(key: str, name: str, *, shown: bool) -> dict[str, Any]:
    return {"uuid": key, "name": name, "display": shown, "isReordered": False, "deleted": False, "isGenerated": False}


def _charts(plan: StudyPlan, params: list[str]) -> list[dict[str, Any]]:
    score, words = plan.objective, objective_in_words(plan.base.dataset)
    if plan.scheduler == "asha":  # the page knows only a run's last value
        words += ", each trial at its own last epoch"
    charts = [_scatter("gap", SHARPNESS_GAP, "METRIC", score, f"Sharpness gap against {words}")]
    on_log_scale = log_searched(plan)
    axes = {name: f"{LOG_PREFIX}{name}" if name in on_log_scale else name for name in params}
    for name in plan.search_space.scientific[:2]:
        scale = " (log10)" if name in on_log_scale else ""
        title = f"{name.replace('_', ' ').capitalize()}{scale} against {words}"
        charts.append(_scatter(name, axes.get(name, name), "PARAM", score, title))
    if len(params) > 1:
        shown = [axes[name] for name in params[:_MOST_AXES]]
        lines = {"selectedParams": shown, "selectedMetrics": [SHARPNESS_GAP, score], "showAllRuns": True}
        charts.append(_card("parallel", "PARALLEL", "Varied parameters") | lines)
    return charts


def _scatter(key: str, x: str, kind: str, y: str, title: str) -> dict[str, Any]:
    axes = {"xaxis": {"key": x, "type": kind}, "yaxis": {"key": y, "type": "METRIC"}}
    return _card(key, "SCATTER", title) | axes


def _card(key: str, kind: str, title: str) -> dict[str, Any]:
    return {
        "uuid": f"{_OURS}-{key}",
        "type": kind,
        "runsCountToCompare": 1000,
        "metricSectionId": _OURS,
        "deleted": False,
        "isGenerated": False,
        "displayName": title,
    }
