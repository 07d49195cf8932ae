"""Whether a study's journal still accounts for what was made of it: what is derived never overwrites more than that.

The records and MLflow's runs are derived from the journal. A journal that lost lines, was emptied or is another's would
replace them by less. Such a study is refused, with both counts, until the journal is restored or the old records are
explicitly set aside.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Final, NamedTuple

from study.ledger.events import STATUSES, ordinal_in
from study.ledger.ledger import SET_ASIDE_FLAG, StudyLedger, TrialEntry, describe_damage
from study.records import RecordedTrial, recorded_trials, set_records_aside
from trainables.process.errors import StudyError

_MOST_NAMED: Final = 5


class DeliveredTrial(NamedTuple):
    """A trial that has ended, as MLflow has it.

    Args:
        status: how it ended.
        attempt: which attempt that was, counted from 1.
    """

    status: str
    attempt: int


def check_records(ledger: StudyLedger) -> None:
    """Check that the journal accounts for every trial of the records, and for as many as the result counts.

    Raises:
        StudyError: it does not; says how many trials each of them has.
    """
    recorded = recorded_trials(ledger.plan.directory)
    if lost := lost_records(ledger, recorded):
        raise StudyError(_refusal(ledger, "records hold", len(recorded), lost))
    if lost_results(ledger):
        raise StudyError(_refusal(ledger, "result in summary.json counts", summarised_trials(ledger.plan.directory)))


def check_trial(ledger: StudyLedger, trial_id: str) -> None:
    """Check that the journal accounts for the record of one trial.

    Raises:
        StudyError: it does not.
    """
    found = recorded_trials(ledger.plan.directory).get(trial_id)
    if found is not None and _has_less(ledger.entries.get(trial_id), found):
        why = describe_damage(ledger) or "journal.jsonl is incomplete"
        raise StudyError(
            f"the records hold {found.epochs} epochs of trial {trial_id}, the journal does not: {why}. Restore "
            f"{ledger.plan.directory / 'journal.jsonl'} from a copy"
        )


def check_delivered(ledger: StudyLedger, delivered: Mapping[str, DeliveredTrial]) -> None:
    """Check that the journal accounts for every ended trial that MLflow has of the study.

    Raises:
        StudyError: it does not.
    """
    if lost := lost_runs(ledger, delivered):
        raise StudyError(_refusal(ledger, "runs in MLflow are", len(delivered), lost))


def lost_records(ledger: StudyLedger, recorded: Mapping[str, RecordedTrial]) -> list[str]:
    """Identifiers of recorded trials that the journal has less of than the records."""
    return [each for each, found in recorded.items() if _has_less(ledger.entries.get(each), found)]


def _has_less(entry: TrialEntry | None, found: RecordedTrial) -> bool:
    if entry is None or found.epochs > len(entry.epochs):
        return True
    if entry.status is None:  # one that failed may be begun again
        return not (entry.attempt > 1 and found.status in ("failed", None))
    return found.status == "finished" and entry.status != "finished"


def lost_results(ledger: StudyLedger) -> bool:
    """Whether the study's result counts more trials than the journal knows the end of; records may be gone too."""
    return summarised_trials(ledger.plan.directory) > _ends_known(ledger)


def _ends_known(ledger: StudyLedger) -> int:
    return sum(entry.status is not None or entry.attempt > 1 for entry in ledger.entries.values())


def summarised_trials(directory: Path) -> int:
    """How many trials had ended when a study's `summary.json` was written; 0 if that cannot be read."""
    try:
        counts = json.loads((directory / "summary.json").read_text(encoding="utf-8"))["trials"]
        return sum(int(counts[status]) for status in STATUSES if status in counts)
    except (OSError, ValueError, LookupError, TypeError, RecursionError):
        return 0


def lost_runs(ledger: StudyLedger, delivered: Mapping[str, DeliveredTrial]) -> list[str]:
    """Identifiers of trials that ended according to MLflow and of which the journal does not know that."""
    lost = []
    for trial_id, found in delivered.items():
        entry = ledger.entries.get(trial_id)
        if entry is None:
            if ordinal_in(trial_id) >= ledger.first_unreserved:
                lost.append(trial_id)
        elif entry.attempt < found.attempt or (entry.status is None and entry.attempt == found.attempt):
            lost.append(trial_id)
    return lost


def _refusal(ledger: StudyLedger, what: str, there: int, lost: Sequence[str] | None = None) -> str:
    """Why a study cannot go on: both counts, and what to do.

    Args:
        ledger: of the study.
        what: holds more than the journal.
        there: how many trials that has.
        lost: identifiers of those that the journal does not account for; None if they are not known.
    """
    plan, path = ledger.plan, ledger.plan.directory / "journal.jsonl"
    counts = f"accounts for {_ends_known(ledger)}"
    if lost is not None:
        names = ", ".join(lost[:_MOST_NAMED]) + ", ..." * (len(lost) > _MOST_NAMED)
        counts = f"accounts for {there - len(lost)} of them (not for {names})"
    why = describe_damage(ledger) or ("journal.jsonl is incomplete" if path.exists() else "journal.jsonl is missing")
    return (
        f"study {plan.name!r}: the {what} {there} ended trials, its journal {counts}: {why}. Nothing has been changed."
        f"\nRestore {path} from a copy; or give {SET_ASIDE_FLAG} to go on from what the journal holds: the records, "
        f"and the result made of them, are then moved to {plan.directory / 'set-aside'} and kept."
    )


def set_aside(ledger: StudyLedger, delivered: Mapping[str, DeliveredTrial]) -> Path | None:
    """Move records away that the journal does not account for, and have its trials that they held run again.

    A journal that cannot be read is moved too, and a new one begins.

    Args:
        ledger: of the study; it can write from then on.
        delivered: what MLflow has of the study.

    Returns:
        Where they are; None if the journal accounts for all, and nothing was done, or there were none.
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
            each: 1 + _attempts(ledger.entries[each], delivered.get(each))
            for each in sorted(lost & ledger.entries.keys())
        },
    )
    return folder


def _attempts(entry: TrialEntry, found: DeliveredTrial | None) -> int:
    return max(entry.attempt, found.attempt if found is not None else 1)


def _highest(trial_ids: Iterable[str]) -> int:
    return max(map(ordinal_in, trial_ids), default=-1)
