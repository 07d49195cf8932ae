"""Saved view of a study's trials on the MLflow experiment page, one per study.

MLflow's page stores saved views in tags of the experiment, as a name and the page state in JSON. A client may write
such a tag. The format is not documented: a page version that does not know the view ignores it, and an unknown field
falls back to a default. The study's note links to the view.
"""

import json
import shlex
import time
from typing import Any, Final
from urllib.parse import quote

from study.plan.plan import StudyPlan
from trainables.spec.measures import ACCURACY, SHARPNESS_GAP, objective_in_words
from trainables.storage.uris import redact_place

VIEW_TAG: Final = "mlflow.sharedViewState."
_OURS: Final = "study"
# Chart sections that the page generates from the first part of a metric name, and whether they are expanded.
_SECTIONS: Final = {"val": True, "train": False, "cost": False}
_COLUMNS: Final = (SHARPNESS_GAP,)
_MOST_AXES: Final = 8
# By default the page puts three charts in a row, which leaves no room for titles on a laptop screen.
_CHARTS_IN_A_ROW: Final = 2
_CHART_HEIGHT: Final = 400  # pixels
# By default the page opens for language-model applications, with runs as evaluations. This selects training.
_TRAINING: Final = "workflowType=machine_learning"
_LOCAL_UI: Final = "http://127.0.0.1:5000"  # where `mlflow ui` listens
NOTE_FIGURES: Final = "note"  # subfolder of a study's figures with the figures for the note
# The page draws the note next to a column of facts, and a wider picture would cover that column. Markdown cannot scale
# it.
NOTE_WIDTH: Final = 700  # pixels
_LETTERS_IN_A_LINE: Final = 84


def view_key(plan: StudyPlan) -> str:
    """Return the key that selects the view in a link."""
    return f"pesfkd-{plan.study_id}"


def saved_view(plan: StudyPlan, parent_id: str) -> str:
    """Return the value of the experiment tag that stores the view.

    Args:
        plan: the study.
        parent_id: MLflow run of the study.
    """
    now = int(time.time() * 1000)
    state = json.dumps(_state(plan, parent_id), separators=(",", ":"))
    return json.dumps({"name": plan.name, "createdAt": now, "updatedAt": now, "state": state}, separators=(",", ":"))


def runs_address(plan: StudyPlan, experiment_id: str) -> str:
    """Return the address of a study's trials in MLflow's UI: the saved view, as a table.

    Without the workflow type, the page opens its view of language-model applications, which shows no data. The address
    of a store that is no server is that of `mlflow ui` on this machine.

    Args:
        plan: the study.
        experiment_id: experiment of the study.
    """
    is_server = plan.tracking_uri.lower().startswith(("http://", "https://"))
    server = redact_place(plan.tracking_uri).rstrip("/") if is_server else _LOCAL_UI
    return f"{server}/{_runs(plan, experiment_id)}"


def _runs(plan: StudyPlan, experiment_id: str) -> str:
    return f"#/experiments/{experiment_id}/runs?viewStateShareKey={view_key(plan)}&{_TRAINING}"


def links(plan: StudyPlan, experiment_id: str) -> str:
    """Return Markdown links to the trials in charts and in a table.

    The links are relative, because the host name in the browser is unknown.
    """
    runs = _runs(plan, experiment_id)
    return (
        f"[Compare the trials in charts]({runs}&compareRunsMode=CHART) or [in a table]({runs}); "
        f"both are the saved view “{plan.name}” of this experiment."
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


def _state(plan: StudyPlan, parent_id: str) -> dict[str, Any]:
    params = [name for name in ("method", *plan.differing) if name != "method" or plan.compared]
    columns = [_column("tags", "stage"), _column("tags", "status")]
    columns += [_column("params", name) for name in params[:_MOST_AXES]]
    columns += [_column("metrics", name) for name in dict.fromkeys((plan.objective, ACCURACY, *_COLUMNS))]
    return {
        "searchFilter": f"tags.`mlflow.parentRunId` = '{parent_id}'",
        "orderByKey": _column("metrics", plan.objective),
        "orderByAsc": False,
        "startTime": "ALL",
        "lifecycleFilter": "Active",
        "modelVersionFilter": "All Runs",
        "datasetsFilter": [],
        "selectedColumns": columns,
        "runsHiddenMode": "SHOW_ALL",  # the page draws ten by default
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
    if plan.scheduler == "asha":  # the page knows only the last value of a run
        words += ", each trial at its own last epoch"
    charts = [_scatter("gap", SHARPNESS_GAP, "METRIC", score, f"Sharpness gap against {words}")]
    for name in plan.search_space.scientific[:2]:
        title = f"{name.replace('_', ' ').capitalize()} against {words}"
        charts.append(_scatter(name, name, "PARAM", score, title))
    axes = {"selectedParams": params[:_MOST_AXES], "selectedMetrics": [SHARPNESS_GAP, score], "showAllRuns": True}
    if len(params) > 1:
        charts.append(_card("parallel", "PARALLEL", "Varied parameters") | axes)
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
