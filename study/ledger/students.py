"""The students of a confirmation."""

from pathlib import Path

from study.ledger.ledger import StudyLedger, TrialEntry
from study.plan.plan import StudyPlan


def student_path(plan: StudyPlan, trial_id: str) -> Path:
    """Where the student of a confirmed trial is kept."""
    return plan.directory / "students" / f"{trial_id}.safetensors"


def first_confirmed(ledger: StudyLedger) -> TrialEntry | None:
    """The trial whose student a confirmation hands on: of its first choice, the first seed that finished.

    Not the seed that did best on the test split, which would make a choice of that reading. A student that could not be
    kept gives way to the next seed's.

    Returns:
        None where no trial of the first choice finished.
    """
    chosen = ledger.confirmation
    if chosen is None:
        return None
    own = [entry for entry in ledger.in_stage("confirm") if chosen.is_first_choice(entry.config)]
    finished = sorted((entry for entry in own if entry.status == "finished"), key=lambda entry: entry.replicate)
    kept = (entry for entry in finished if student_path(ledger.plan, entry.trial_id).is_file())
    return next(kept, finished[0] if finished else None)
