"""Logged models of the confirmed trials, so that `mlflow.search_logged_models` finds the best student.

Each confirmed trial gets one logged model with the trial's scores and settings. The first choice's student files are
kept, and the tag `student_file` in their models holds the path. The file itself is not copied: a copy per seed would
multiply a confirmation's disk space. One student of the first choice is also registered as a whole, see
`study.tracking.student`.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from mlflow import MlflowClient
from mlflow.entities import LoggedModelOutput, Metric, Run

from study.ledger.entry import TrialEntry
from study.ledger.students import student_path
from study.plan.plan import StudyPlan
from study.tracking.trial_run import epoch_metrics, trial_params
from trainables.spec.measures import SHARPNESS_GAP, objective_of

MODEL_TYPE: Final = "student"
_FILE: Final = "student_file"


def log_confirmed_models(
    client: MlflowClient, plan: StudyPlan, experiment_id: str, entries: Iterable[TrialEntry], runs: Mapping[str, Run]
) -> None:
    """Create all missing logged models. May be called again.

    Args:
        client: MLflow client for the store.
        plan: the study.
        experiment_id: experiment of the study.
        entries: trials of the study.
        runs: trial runs by trial identifier.
    """
    wanted = [
        entry for entry in entries if entry.stage == "confirm" and entry.status == "finished" and entry.trial_id in runs
    ]
    if not wanted:
        return
    known = _known(client, plan, experiment_id)
    for entry in wanted:
        if entry.trial_id not in known:
            _log(client, plan, experiment_id, entry, runs[entry.trial_id].info.run_id)


def _known(client: MlflowClient, plan: StudyPlan, experiment_id: str) -> set[str]:
    """Return the trials with a complete logged model."""
    found, token = set(), None
    while True:
        page = client.search_logged_models([experiment_id], f"tags.study_id = '{plan.study_id}'", page_token=token)
        found |= {each.tags["trial_id"] for each in page if str(each.status) == "READY" and "trial_id" in each.tags}
        token = page.token
        if not token:
            return found


def _log(client: MlflowClient, plan: StudyPlan, experiment_id: str, entry: TrialEntry, run_id: str) -> None:
    tags = {
        "study": plan.name,
        "study_id": plan.study_id,
        "trial_id": entry.trial_id,
        "config_id": entry.config_id,
    }
    if (path := student_path(plan, entry.trial_id)).is_file():
        tags[_FILE] = str(path.absolute())
    params = {name: str(value) for name, value in trial_params(plan, entry).items()}
    model = client.create_logged_model(
        experiment_id, name=re.sub(r"[^\w-]", "_", entry.name), source_run_id=run_id, tags=tags, params=params,
        model_type=MODEL_TYPE,
    )  # fmt: skip
    last = max(entry.epochs)
    shown = (plan.objective, SHARPNESS_GAP, objective_of(plan.base.dataset, "test"), "test/accuracy")
    # The run has these metrics already. With the same time, they are not stored again, and belong to both.
    metrics = [
        Metric(each.key, each.value, each.timestamp, each.step, model_id=model.model_id)
        for each in epoch_metrics(entry, [last], plan.objective)
        if each.key in shown
    ]
    client.log_batch(run_id, metrics=metrics)
    client.log_outputs(run_id, [LoggedModelOutput(model.model_id, last)])
    client.finalize_logged_model(model.model_id, "READY")  # last: an unfinished one is created again
