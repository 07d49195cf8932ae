"""Checks of a finished study from outside: records, journal and MLflow agree."""

import time
from collections import Counter
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from mlflow import MlflowClient
from mlflow.entities import Run

from study.ledger.journal import read_lines
from study.ledger.ledger import StudyLedger
from study.plan.plan import StudyPlan
from study.plan.resolve import load_plan
from study.records import read_epochs, read_trials
from study.tracking.groups import bound_names
from study.tracking.trial_run import COST_AXES
from trainables.spec.measures import objective_of

OVER_SEEDS = [objective_of(name, split) for name in ("digits", "glue:cola", "glue:mrpc") for split in ("val", "test")]


def runs_of(plan: StudyPlan) -> tuple[Run, list[Run]]:
    """Return the parent run of a study and the child runs."""
    client = MlflowClient(plan.tracking_uri)
    experiments = [e.experiment_id for e in client.search_experiments()]
    found = client.search_runs(experiments, f"tags.study_id = '{plan.study_id}'", max_results=1000)
    (parent,) = [run for run in found if run.data.tags["kind"] == "study"]
    return parent, [run for run in found if run.data.tags["kind"] == "trial"]


def assert_whole(directory: Path, tracking_uri: str | None = None) -> None:
    """Assert that every trial ended exactly once, in the records and in MLflow, and that both agree.

    The MLflow store is that of the plan, unless a tracking URI is given.
    """
    plan = load_plan(directory)
    if tracking_uri is not None:
        plan = plan.model_copy(update={"tracking_uri": tracking_uri})
    trials = {row["trial_id"]: row for row in read_trials(directory).to_pylist()}
    epochs = Counter(read_epochs(directory)["trial_id"].to_pylist())
    parent, children = runs_of(plan)
    assert len(trials) == StudyLedger(plan, read_only=True).planned
    assert parent.info.status == "FINISHED"
    assert Counter(run.data.tags["trial_id"] for run in children) == Counter(list(trials))
    assert {run.info.status for run in children} <= {"FINISHED", "FAILED"}
    for run in children:
        row = trials[run.data.tags["trial_id"]]
        assert run.info.run_name == row["name"]
        assert run.data.tags["status"] == row["status"]
        assert epochs[row["trial_id"]] == row["epochs"]
        over_seeds = {name for measure in OVER_SEEDS for name in bound_names(measure)}
        for name, value in run.data.metrics.items():
            assert name in over_seeds or row[name] == value
        for name in COST_AXES:
            assert name not in run.data.params or row[name] == float(run.data.params[name])
    identities = Counter((row["config_id"], row["replicate"]) for row in trials.values())
    assert set(identities.values()) == {1}


def read_journal(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """Return the valid events, oldest first, and the numbers of damaged lines."""
    lines = list(read_lines(path))
    return [event for _, event in lines if event is not None], [number for number, event in lines if event is None]


def files_in(folder: Path, *, without: Collection[str] = ()) -> dict[str, bytes]:
    """Return the content of the files below a folder by path, except files with the names in `without`."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name not in without)
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def wait_until(reached: Callable[[], bool], timeout: float = 300) -> None:
    """Return as soon as `reached` returns True. Fail after `timeout` seconds. A busy machine needs a long time."""
    deadline = time.monotonic() + timeout
    while not reached():
        assert time.monotonic() < deadline, "it did not get that far"
        time.sleep(0.02)
