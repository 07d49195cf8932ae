"""Saved students of a confirmation."""

from pathlib import Path

from study.ledger.entry import TrialEntry
from study.ledger.ledger import StudyLedger
from study.plan.plan import StudyPlan


def student_path(plan: StudyPlan, trial_id: str) -> Path:
    """Return the path of the saved student of a confirmation trial."""
    return plan.directory / "students" / f"{trial_id}.safetensors"


def confirmed_students(ledger: StudyLedger) -> list[tuple[TrialEntry, Path]]:
    """Return the finished trials of the confirmation's first choice with a saved student, by seed, with its path."""
    chosen = ledger.confirmation
    if chosen is None:
        return []
    own = [entry for entry in ledger.in_stage("confirm") if chosen.is_first_choice(entry.config)]
    finished = sorted((entry for entry in own if entry.status == "finished"), key=lambda entry: entry.replicate)
    paths = ((entry, student_path(ledger.plan, entry.trial_id)) for entry in finished)
    return [(entry, path) for entry, path in paths if path.is_file()]


def first_confirmed(ledger: StudyLedger) -> TrialEntry | None:
    """Return the trial that provides the student for export: the first finished seed of the first choice.

    Picking the seed with the best test accuracy would select on the test split. If the student of a seed could not be
    saved, the next seed is used.

    Returns:
        The trial, or None if no trial of the first choice has finished.
    """
    chosen = ledger.confirmation
    if chosen is None:
        return None
    own = [entry for entry in ledger.in_stage("confirm") if chosen.is_first_choice(entry.config)]
    finished = sorted((entry for entry in own if entry.status == "finished"), key=lambda entry: entry.replicate)
    kept = (entry for entry in finished if student_path(ledger.plan, entry.trial_id).is_file())
    return next(kept, finished[0] if finished else None)
