"""Checks that the journal is complete before records or MLflow runs are derived from it.

A truncated or empty journal, or one from another study, would overwrite records and MLflow runs with less content. The
checks reject such a study and report both counts, until the user restores the journal or sets the old records aside.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final

from study.ledger.damage import SET_ASIDE_FLAG
from study.ledger.entry import TrialEntry
from study.ledger.events import STATUSES, ordinal_in
from study.ledger.ledger import StudyLedger
from study.records import RecordedTrial, recorded_trials, set_records_aside
from trainables.process.errors import StudyError

_MOST_NAMED: Final = 5


def check_records(ledger: StudyLedger) -> None:
    """Check that the journal contains every recorded trial, and at least as many trials as `summary.json` counts.

    Raises:
        StudyError: the journal has fewer trials. The message gives both counts.
    """
    recorded = recorded_trials(ledger.plan.directory)
    if lost := lost_records(ledger, recorded):
        raise StudyError(_refusal(ledger, "records contain", len(recorded), lost))
    if lost_results(ledger):
        raise StudyError(_refusal(ledger, "result in summary.json counts", summarised_trials(ledger.plan.directory)))


def check_trial(ledger: StudyLedger, trial_id: str) -> None:
    """Check that the journal contains everything recorded for one trial.

    Raises:
        StudyError: the journal has less.
    """
    found = recorded_trials(ledger.plan.directory).get(trial_id)
    if found is not None and _is_incomplete(ledger.entries.get(trial_id), found):
        why = ledger.describe_damage() or "journal.jsonl is incomplete"
        raise StudyError(
            f"the records contain {found.epochs} epochs of trial {trial_id}, but the journal does not: {why}. Restore "
            f"{ledger.plan.directory / 'journal.jsonl'} from a copy"
        )


def check_delivered(ledger: StudyLedger, delivered: Mapping[str, int]) -> None:
    """Check that the journal contains every ended trial found in MLflow for the study.

    Raises:
        StudyError: the journal lacks some trials.
    """
    if lost := lost_runs(ledger, delivered):
        raise StudyError(_refusal(ledger, "MLflow runs include", len(delivered), lost))


def lost_records(ledger: StudyLedger, recorded: Mapping[str, RecordedTrial]) -> list[str]:
    """Return the identifiers of trials with more content in the records than in the journal."""
    return [each for each, found in recorded.items() if _is_incomplete(ledger.entries.get(each), found)]


def _is_incomplete(entry: TrialEntry | None, found: RecordedTrial) -> bool:
    if entry is None or found.epochs > len(entry.epochs):
        return True
    if entry.status is None:  # a failed trial may have been retried
        return not (entry.attempt > 1 and found.status in ("failed", None))
    return found.status == "finished" and entry.status != "finished"


def lost_results(ledger: StudyLedger) -> bool:
    """Return whether `summary.json` counts more ended trials than the journal. Works even if records are lost."""
    return summarised_trials(ledger.plan.directory) > _known_ends(ledger)


def _known_ends(ledger: StudyLedger) -> int:
    return sum(entry.status is not None or entry.attempt > 1 for entry in ledger.entries.values())


def summarised_trials(directory: Path) -> int:
    """Return the number of ended trials from a study's `summary.json`, or 0 if the file cannot be read."""
    try:
        counts = json.loads((directory / "summary.json").read_text(encoding="utf-8"))["trials"]
        return sum(int(counts[status]) for status in STATUSES if status in counts)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return 0


def lost_runs(ledger: StudyLedger, delivered: Mapping[str, int]) -> list[str]:
    """Return the identifiers of trials that have ended in MLflow but not in the journal."""
    lost = []
    for trial_id, attempt in delivered.items():
        entry = ledger.entries.get(trial_id)
        if entry is None:
            if ordinal_in(trial_id) >= ledger.first_unreserved:
                lost.append(trial_id)
        elif entry.attempt < attempt or (entry.status is None and entry.attempt == attempt):
            lost.append(trial_id)
    return lost


def _refusal(ledger: StudyLedger, source: str, count: int, lost: Sequence[str] | None = None) -> str:
    """Return the error message for an incomplete journal: both counts and the user's options.

    Args:
        ledger: study ledger.
        source: name of the source with more trials than the journal, including the verb.
        count: number of trials in the source.
        lost: identifiers of trials missing from the journal, or None if unknown.
    """
    plan, path = ledger.plan, ledger.plan.directory / "journal.jsonl"
    counts = f"contains {_known_ends(ledger)}"
    if lost is not None:
        names = ", ".join(lost[:_MOST_NAMED]) + ", ..." * (len(lost) > _MOST_NAMED)
        counts = f"contains {count - len(lost)} of them (not {names})"
    why = ledger.describe_damage() or ("journal.jsonl is incomplete" if path.exists() else "journal.jsonl is missing")
    return (
        f"study {plan.name!r}: the {source} {count} ended trials, but the journal {counts}: {why}. Nothing has been "
        f"changed.\nRestore {path} from a copy; or give {SET_ASIDE_FLAG} to continue with the trials in the journal: "
        f"the records and the result derived from them are then moved to {plan.directory / 'set-aside'} and kept."
    )


def set_aside(ledger: StudyLedger, delivered: Mapping[str, int]) -> Path | None:
    """Move the records away if the journal lacks any of them, and reopen the affected journal trials.

    An unreadable journal is moved away too and replaced by a new one.

    Args:
        ledger: study ledger. Writable after this call if anything was set aside.
        delivered: attempt number of each ended trial found in MLflow, by trial identifier.

    Returns:
        The folder with the moved files. None if the journal is complete and nothing was changed, or if there was
        nothing to move.
    """
    directory = ledger.plan.directory
    recorded, counted = recorded_trials(directory), summarised_trials(directory)
    lost = {*lost_records(ledger, recorded), *lost_runs(ledger, delivered)}
    if not (lost or lost_results(ledger) or ledger.is_unreadable):
        return None
    folder = set_records_aside(directory, *(["journal.jsonl"] if ledger.is_unreadable else []))
    ledger.forget_unreadable()
    ledger.begin_writing()
    ledger.set_aside(
        str(folder.relative_to(directory)) if folder is not None else None,
        1 + max(_highest([*recorded, *delivered, *ledger.entries]), counted - 1),
        {
            each: 1 + max(ledger.entries[each].attempt, delivered.get(each, 1))
            for each in sorted(lost & ledger.entries.keys())
        },
    )
    return folder


def _highest(trial_ids: Iterable[str]) -> int:
    return max(map(ordinal_in, trial_ids), default=-1)
