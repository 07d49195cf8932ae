"""Opening and completing a study's records from the journal."""

from collections.abc import Callable

from study.ledger.ledger import StudyLedger
from study.ledger.rows import epoch_rows, trial_row
from study.plan.plan import StudyPlan
from study.records import RecordWriter, recorded_trials


def complete_records(plan: StudyPlan, ledger: StudyLedger, records: RecordWriter) -> None:
    """After a driver was killed, write the journal's trials that are missing from the records."""
    recorded = records.recorded()
    for entry in ledger.entries.values():
        if entry.status is not None and entry.trial_id not in recorded:
            records.write(trial_row(plan, entry), epoch_rows(entry))
    if not ledger.unfinished:
        records.merge()


def open_records(plan: StudyPlan, ledger: StudyLedger, say: Callable[[str], None]) -> RecordWriter:
    """Open a study's records, and rewrite damaged or outdated records from the journal."""
    records = RecordWriter(plan.directory)
    for path in records.set_damaged_aside():
        say(f"{path} is damaged: it was moved to {plan.directory / 'set-aside'} and is written again from the journal")
    ends = {entry.trial_id: (entry.status, entry.error) for entry in ledger.entries.values()}
    recorded = recorded_trials(plan.directory)
    records.drop({each for each, found in recorded.items() if ends[each] != (found.status, found.error)})
    if ledger.entries:
        complete_records(plan, ledger, records)
    return records
