"""How MLflow's page shows a study's trials: a saved view of the experiment, one for each study.

The page keeps its saved views in tags of the experiment, as a name and the state of the page in JSON; a client may
write one. That is no published format: a version of the page that does not know it shows what it shows without it, and
where a field has another name by then, that field's default. The study's note has links to the view.
"""

import json
import shlex
import time
from typing import Any, Final
from urllib.parse import quote

from study.plan.plan import StudyPlan
from trainables.spec.measures import ACCURACY, SHARPNESS_GAP, objective_in_words

VIEW_TAG: Final = "mlflow.sharedViewState."
_OURS: Final = "study"
# Sections of charts that the page makes by itself, by the first part of a measure's name; those that are open.
_SECTIONS: Final = {"val": True, "train": False, "cost": False}
_COLUMNS: Final = (SHARPNESS_GAP,)
_MOST_AXES: Final = 8
# By itself the page sets three charts side by side, in which a laptop's screen leaves no room for their titles.
_CHARTS_IN_A_ROW: Final = 2
_CHART_HEIGHT: Final = 400  # pixels
# The page opens as one for language models' applications, where a run is an evaluation; this makes it one of training.
_TRAINING: Final = "workflowType=machine_learning"
NOTE_FIGURES: Final = "note"  # the folder, among a study's figures, of those in its note
# A note is drawn beside a column of facts, lets no picture be scaled, and grows over that column if one is wider.
NOTE_WIDTH: Final = 700  # pixels
_LETTERS_IN_A_LINE: Final = 84


def view_key(plan: StudyPlan) -> str:
    """By which the view is asked for."""
    return f"pesfkd-{plan.study_id}"


def saved_view(plan: StudyPlan, parent_id: str) -> str:
    """The value of the experiment's tag that holds the view.

    Args:
        plan: the study.
        parent_id: its run.
    """
    now = int(time.time() * 1000)
    state = json.dumps(_state(plan, parent_id), separators=(",", ":"))
    return json.dumps({"name": plan.name, "createdAt": now, "updatedAt": now, "state": state}, separators=(",", ":"))


def links(plan: StudyPlan, experiment_id: str) -> str:
    """Markdown: where the trials are compared. Relative, as nobody knows under which name a page is looked at."""
    runs = f"#/experiments/{experiment_id}/runs?viewStateShareKey={view_key(plan)}&{_TRAINING}"
    return (
        f"[Compare the trials in charts]({runs}&compareRunsMode=CHART) or [in a table]({runs}); "
        f"both are the saved view “{plan.name}” of this experiment."
    )


def command_block(command: str) -> str:
    """Markdown: a command over several lines, as a shell takes it; a long line would widen the page."""
    lines = [""]
    for word in map(shlex.quote, shlex.split(command)):
        if word.startswith("--") and len(lines[-1]) + len(word) > _LETTERS_IN_A_LINE - 20:
            lines.append(" ")
        lines[-1] += f" {word}" if lines[-1] else word
    return "\n".join(["```", " \\\n".join(lines), "```"])


def artifact_links(experiment_id: str, run_id: str, figures: list[tuple[str, str]], *, report: bool) -> str:
    """Markdown: the report, and the figures themselves.

    Args:
        experiment_id: of the run.
        run_id: of the study's run.
        figures: title and path of each among its artifacts.
        report: whether `report.html` is among them.
    """
    parts = (
        [f"[The whole report](#/experiments/{experiment_id}/runs/{run_id}/artifacts/report.html?{_TRAINING})"]
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
        "runsHiddenMode": "SHOW_ALL",  # by itself the page draws ten
        "compareRunCharts": _charts(plan, params),
        "compareRunSections": [
            _section(_OURS, plan.name, shown=True) | {"columns": _CHARTS_IN_A_ROW, "cardHeight": _CHART_HEIGHT},
            *(_section(name, name, shown=shown) for name, shown in _SECTIONS.items()),
        ],
        "isAccordionReordered": True,  # or the page sorts ours among the others
        "hideEmptyCharts": True,
    }


def _column(kind: str, name: str) -> str:
    return f"{kind}.`{name}`"


def _section(key: str, name: str, *, shown: bool) -> dict[str, Any]:
    return {"uuid": key, "name": name, "display": shown, "isReordered": False, "deleted": False, "isGenerated": False}


def _charts(plan: StudyPlan, params: list[str]) -> list[dict[str, Any]]:
    score, words = plan.objective, objective_in_words(plan.base.dataset)
    if plan.scheduler == "asha":  # the page knows a run's last value alone
        words += ", each trial at its own last epoch"
    charts = [_scatter("gap", SHARPNESS_GAP, "METRIC", score, f"Sharpness gap against {words}")]
    for name in plan.search_space.scientific[:2]:
        title = f"{name.replace('_', ' ').capitalize()} against {words}"
        charts.append(_scatter(name, name, "PARAM", score, title))
    axes = {"selectedParams": params[:_MOST_AXES], "selectedMetrics": [SHARPNESS_GAP, score], "showAllRuns": True}
    if len(params) > 1:
        charts.append(_card("parallel", "PARALLEL", "What was varied") | axes)
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
