"""Failed trials in a study, grouped by error."""

from collections.abc import Iterable

from study.ledger.entry import TrialEntry
from trainables.display.failures import kind_of, one_line
from trainables.display.numbers import counted

_NAMED = 3


def _grouped(failed: Iterable[TrialEntry]) -> list[list[TrialEntry]]:
    """Group failed trials by error type and error location, ordered by the first trial of each group."""
    groups: dict[tuple[str, str], list[TrialEntry]] = {}
    for entry in failed:
        groups.setdefault(kind_of(entry.error or ""), []).append(entry)
    return list(groups.values())


def failure_notes(failed: Iterable[TrialEntry], *, at_most: int) -> list[str]:
    """Return one line per kind of error, with the trial names.

    Args:
        failed: failed trials.
        at_most: maximum number of lines.
    """
    groups = _grouped(failed)
    lines = [f"Failed: {_names(group)}: {one_line(group[0].error or '')}" for group in groups[:at_most]]
    left = sum(map(len, groups[at_most:]))
    return lines + ([f"Failed by other errors: {counted(left, 'trial')}; see the report."] if left else [])


def _names(group: list[TrialEntry]) -> str:
    names = ", ".join(f"{entry.name} ({entry.trial_id})" for entry in group[:_NAMED])
    if len(group) == 1:
        return names
    more = f" and {len(group) - _NAMED} more" if len(group) > _NAMED else ""
    return f"{len(group)} trials, {names}{more}"
