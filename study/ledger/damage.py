"""Description of journal damage: lost content, and how to continue."""

from collections.abc import Iterable, Mapping
from typing import Final

from study.ledger.entry import TrialEntry
from study.plan.plan import StudyPlan
from study.records import recorded_trials

# Moves records and an unreadable journal away. Nothing is deleted.
SET_ASIDE_FLAG: Final = "--set-aside-records"
_MOST_SHOWN: Final = 5  # damaged lines in a message


def describe_unreadable(plan: StudyPlan, damage: Mapping[int, str]) -> str:
    """Return the error for a journal without any readable line, with the two ways to continue.

    Args:
        plan: study plan.
        damage: reason for each skipped line, by line number from 1.
    """
    directory, (number, why) = plan.directory, next(iter(damage.items()))
    return (
        f"study {plan.name!r}: the records contain {len(recorded_trials(directory))} ended trials, but the "
        f"journal contains 0 of them: this version can read none of the lines (line {number}: {why}). Another "
        "version or a manual edit may have changed the file. Nothing has been changed now.\n"
        f"Restore {directory / 'journal.jsonl'} from a copy; or give {SET_ASIDE_FLAG} to start again: the journal, the "
        f"records and the result derived from them are then moved to {directory / 'set-aside'} and kept."
    )


def describe_damage(damage: Mapping[int, str], entries: Iterable[TrialEntry]) -> str | None:
    """Return a description of the journal's damage for the user, or None for an intact journal.

    Args:
        damage: reason for each skipped line, by line number from 1.
        entries: trials of the journal.
    """
    parts = []
    if damage:
        lines = sorted(damage)
        shown = "; ".join(f"line {number}: {damage[number]}" for number in lines[:_MOST_SHOWN])
        more = "; ..." * (len(lines) > _MOST_SHOWN)
        parts.append(f"{len(lines)} lines were skipped ({_ranges(lines)}): {shown}{more}")
    incomplete = [entry.trial_id for entry in entries if entry.gaps]
    if incomplete:
        names = ", ".join(incomplete[:_MOST_SHOWN]) + ", ..." * (len(incomplete) > _MOST_SHOWN)
        parts.append(f"epochs are missing in {names}")
    return f"journal.jsonl is damaged: {'; and '.join(parts)}" if parts else None


def _ranges(numbers: list[int]) -> str:
    """Format sorted numbers as ranges, as in `1-3, 7`, showing only the first few."""
    runs: list[list[int]] = []
    for number in numbers:
        if runs and number == runs[-1][1] + 1:
            runs[-1][1] = number
        else:
            runs.append([number, number])
    shown = [str(first) if first == last else f"{first}-{last}" for first, last in runs[:_MOST_SHOWN]]
    return ", ".join(shown) + ", ..." * (len(runs) > _MOST_SHOWN)
