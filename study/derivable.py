"""Whether a study's journal still accounts for what was made of it: what is derived never overwrites more than that.

The records and MLflow's runs are derived from the journal. A journal that lost lines, was emptied or is another's would
replace them by less. Such a study is refused, with both counts, until the journal is restored or the old records are
explicitly set aside.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Final, NamedTuple

from study.errors import StudyError
from study.journal_events import ordinal_in
from study.ledger import StudyLedger, TrialEntry, describe_damage
from study.records import RecordedTrial, recorded_trials, set_records_aside

FLAG: Final = "--set-aside-records"
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
    """Check that the journal accounts for every trial of the records.

    Raises:
        StudyError: it does not; says how many trials each of them has.
    """
    recorded = recorded_trials(ledger.plan.directory)
    _refuse(ledger, "records hold", len(recorded), lost_records(ledger, recorded))


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
    _refuse(ledger, "runs in MLflow are", len(delivered), lost_runs(ledger, delivered))


def lost_records(ledger: StudyLedger, recorded: Mapping[str, RecordedTrial]) -> list[str]:
    """Identifiers of recorded trials that the journal has less of than the records."""
    return [each for each, found in recorded.items() if _has_less(ledger.entries.get(each), found)]


def _has_less(entry: TrialEntry | None, found: RecordedTrial) -> bool:
    if entry is None or found.epochs > len(entry.epochs):
        return True
    if entry.status is None:  # one that failed may be begun again
        return not (entry.attempt > 1 and found.status in ("failed", None))
    return found.status == "finished" and entry.status != "finished"


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


def _refuse(ledger: StudyLedger, what: str, there: int, lost: list[str]) -> None:
    if not lost:
        return
    plan, path = ledger.plan, ledger.plan.directory / "journal.jsonl"
    names = ", ".join(lost[:_MOST_NAMED]) + ", ..." * (len(lost) > _MOST_NAMED)
    why = describe_damage(ledger) or ("journal.jsonl is incomplete" if path.exists() else "journal.jsonl is missing")
    raise StudyError(
        f"study {plan.name!r}: the {what} {there} ended trials, its journal accounts for {there - len(lost)} of them "
        f"(not for {names}). {why[0].upper()}{why[1:]}. Nothing has been changed.\nRestore {path} from a copy; or give "
        f"{FLAG} to go on from what the journal holds: the records, and the result made of them, are then moved to "
        f"{plan.directory / 'set-aside'} and kept."
    )


def set_aside(ledger: StudyLedger, delivered: Mapping[str, DeliveredTrial]) -> Path | None:
    """Move records away that the journal does not account for, and have its trials that they held run again.

    Args:
        ledger: of the study; it can write.
        delivered: what MLflow has of the study.

    Returns:
        Where they are; None if the journal accounts for all, and nothing was done, or there were none.
    """
    recorded = recorded_trials(ledger.plan.directory)
    lost = {*lost_records(ledger, recorded), *lost_runs(ledger, delivered)}
    if not lost:
        return None
    folder = set_records_aside(ledger.plan.directory)
    ledger.set_aside(
        str(folder.relative_to(ledger.plan.directory)) if folder is not None else None,
        1 + _highest([*recorded, *delivered, *ledger.entries]),
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
