"""The records of a study, opened and completed from its journal."""

from collections.abc import Callable

from study.ledger.ledger import StudyLedger, epoch_rows, trial_row
from study.plan.plan import StudyPlan
from study.records import RecordWriter, recorded_trials


def complete_records(plan: StudyPlan, ledger: StudyLedger, records: RecordWriter) -> None:
    """Write what a killed driver had entered into the journal and not yet into the records."""
    recorded = records.recorded()
    for entry in ledger.entries.values():
        if entry.status is not None and entry.trial_id not in recorded:
            records.write(trial_row(plan, entry), epoch_rows(entry))
    if not ledger.unfinished:
        records.merge()


def open_records(plan: StudyPlan, ledger: StudyLedger, say: Callable[[str], None]) -> RecordWriter:
    """The records of a study, as far as they are whole and agree with its journal; the rest is written from that."""
    records = RecordWriter(plan.directory)
    for path in records.set_damaged_aside():
        say(f"{path} is damaged: it is moved to {plan.directory / 'set-aside'} and written again from the journal")
    ends = {entry.trial_id: (entry.status, entry.error) for entry in ledger.entries.values()}
    recorded = recorded_trials(plan.directory)
    records.drop({each for each, found in recorded.items() if ends[each] != (found.status, found.error)})
    if ledger.entries:
        complete_records(plan, ledger, records)
    return records
