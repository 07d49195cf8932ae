"""Rows in the records: a trial, and the trial's epochs."""

import base64
from typing import Any

from study.ledger.entry import TrialEntry
from study.plan.plan import StudyPlan
from trainables.spec.measures import CALIBRATION, CLASSES, CORRECT, COST_FACTS, DATA_FACTS, DEPLOY_FACTS, MEASURES


def trial_row(plan: StudyPlan, entry: TrialEntry) -> dict[str, Any]:
    """Return a trial as a row of `records.TRIALS_SCHEMA`."""
    config = entry.config.model_dump(mode="json")
    config["epochs_planned"] = config.pop("epochs")
    return {
        **config,
        "trial_id": entry.trial_id,
        "study": entry.trial_id.rpartition("-")[0],  # the original name, even if the folder was renamed
        "space": plan.space,
        "stage": entry.stage,
        "name": entry.name,
        "config_id": entry.config_id,
        "replicate": entry.replicate,
        "status": entry.status,
        "error": entry.error,
        "epochs": len(entry.epochs),
        "started": int(entry.started * 1e6),
        "seconds": entry.seconds,
        **{name: entry.last.get(name) for name in MEASURES},
        **{name: entry.facts.get(name) for name in (*COST_FACTS, *DATA_FACTS, *DEPLOY_FACTS)},
        **{name: _bins(entry.calibration.get(name)) for name in CALIBRATION},
        CORRECT: base64.b64decode(entry.answers["bits"]) if "bits" in entry.answers else None,
        CLASSES: _classes(entry.answers),
    }


def _bins(sums: dict[str, list[float]] | None) -> list[dict[str, float]] | None:
    """Convert calibration sums, stored as one list per quantity, to a list of bins."""
    if sums is None:
        return None
    return [dict(zip(sums, each, strict=True)) for each in zip(*sums.values(), strict=True)]


def _classes(answers: dict[str, Any]) -> list[dict[str, float | None]] | None:
    """Convert the sums per class in a trial's answers to a list of classes."""
    if "count" not in answers:
        return None
    empty = [None] * len(answers["count"])
    columns = {name: answers.get(name, empty) for name in ("count", "correct", "gap_count", "gap")}
    return [dict(zip(columns, each, strict=True)) for each in zip(*columns.values(), strict=True)]


def epoch_rows(entry: TrialEntry) -> list[dict[str, Any]]:
    """Return a trial's epochs as rows of `records.EPOCHS_SCHEMA`."""
    return [
        {"trial_id": entry.trial_id, "epoch": epoch, "time": int(entry.epoch_times[epoch] * 1e6), **measures}
        for epoch, measures in sorted(entry.epochs.items())
    ]
