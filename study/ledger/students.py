"""Saved students from a confirmation: for chosen configs, not for controls."""

from collections.abc import Iterable
from pathlib import Path

from study.ledger.confirmation import Choice
from study.ledger.entry import TrialEntry
from study.ledger.ledger import StudyLedger
from study.plan.plan import StudyPlan
from trainables.process.errors import UsageError


def student_path(plan: StudyPlan, trial_id: str) -> Path:
    """Return the path of a confirmation trial's saved student."""
    return plan.directory / "students" / f"{trial_id}.safetensors"


def keeps_student(ledger: StudyLedger, entry: TrialEntry) -> bool:
    """Return whether a trial's student is saved. Only the students of chosen configs in a confirmation are saved."""
    if entry.stage != "confirm" or ledger.confirmation is None:
        return False
    return any(choice.config.config_id == entry.config.config_id for choice in chosen(ledger))


def chosen(ledger: StudyLedger) -> list[Choice]:
    """Return the confirmation's choices without controls, best first."""
    if ledger.confirmation is None:
        return []
    ranked = [choice for choice in ledger.confirmation.choices if choice.rank is not None]
    return sorted(ranked, key=lambda choice: choice.rank or 0)


def confirmed_students(ledger: StudyLedger, choice: Choice | None = None) -> list[tuple[TrialEntry, Path]]:
    """Return a choice's finished trials with a saved student, by seed, and the student's path.

    Args:
        ledger: study ledger.
        choice: one of `chosen`. Default: the first choice.
    """
    paths = ((entry, student_path(ledger.plan, entry.trial_id)) for entry in _finished(ledger, choice))
    return [(entry, path) for entry, path in paths if path.is_file()]


def first_confirmed(ledger: StudyLedger, choice: Choice | None = None) -> TrialEntry | None:
    """Return the trial with the student for export: the first finished seed of a choice.

    Picking the seed with the best test accuracy would select on the test split. If a seed's student could not be saved,
    the next seed is used.

    Args:
        ledger: study ledger.
        choice: one of `chosen`. Default: the first choice.

    Returns:
        The trial, or None if the choice has no finished trial.
    """
    finished = _finished(ledger, choice)
    kept = (entry for entry in finished if student_path(ledger.plan, entry.trial_id).is_file())
    return next(kept, finished[0] if finished else None)


def _finished(ledger: StudyLedger, choice: Choice | None) -> list[TrialEntry]:
    """Return a choice's finished trials by seed; none without a confirmation."""
    choice = choice or next(iter(chosen(ledger)), None)
    if choice is None:
        return []
    own = [entry for entry in ledger.in_stage("confirm") if entry.config.config_id == choice.config.config_id]
    return sorted((entry for entry in own if entry.status == "finished"), key=lambda entry: entry.replicate)


def choice_named(ledger: StudyLedger, *, config: str | None = None, trial: str | None = None) -> Choice | None:
    """Return the choice with a config identifier or a confirmed trial; None if neither is given.

    Args:
        ledger: study ledger, with a confirmation.
        config: config identifier, or the beginning of one.
        trial: trial identifier.

    Raises:
        UsageError: no choice fits, or several have this beginning. The message lists all.
    """
    if config is None and trial is None:
        return None
    if config is not None and trial is not None:
        raise UsageError("give either --config or --trial, not both")
    choices = chosen(ledger)
    if config is not None:
        found = [choice for choice in choices if config and choice.config_id.startswith(config)]
        given = f"--config {config}"
    else:
        entry = ledger.entries.get(str(trial))
        ids = {entry.config.config_id} if entry is not None and entry.stage == "confirm" else set()
        found = [choice for choice in choices if choice.config.config_id in ids]
        given = f"--trial {trial}"
    if len(found) == 1:
        return found[0]
    problem = "fits several configs" if found else "is none with a saved student"
    raise UsageError(f"{given} {problem} of study {ledger.plan.name!r}. There are:\n{_listed(ledger, choices)}")


def _listed(ledger: StudyLedger, choices: Iterable[Choice]) -> str:
    """Return one line for each choice: identifier, name and the trials with a saved student."""
    lines = []
    for choice in choices:
        trials = [entry.trial_id for entry, _ in confirmed_students(ledger, choice)]
        lines.append(f"  --config {choice.config_id}  {choice.label} ({', '.join(trials) or 'no student is saved'})")
    return "\n".join(lines)
