"""Interface for the writers in `study.tracking.trial_files`, and the written settings."""

from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from study.ledger.entry import TrialEntry
from study.plan.plan import StudyPlan
from study.tracking.trial_run import trial_params

_LARGEST_EXACT: Final = 2**53  # integer in a double


class Written(NamedTuple):
    """Trial state in the files.

    Args:
        attempt: last written attempt.
        epoch: last written epoch, 0 for none.
        ended: whether the attempt's end is written.
    """

    attempt: int = 1
    epoch: int = 0
    ended: bool = False


def exact_settings(plan: StudyPlan, entry: TrialEntry) -> dict[str, Any]:
    """Return a trial's settings. Integers without an exact double, e.g. seeds, become strings.

    TensorBoard stores all numbers as doubles, and so do the pages of Weights & Biases.
    """
    return {
        name: str(each) if type(each) is int and abs(each) > _LARGEST_EXACT else each
        for name, each in trial_params(plan, entry).items()
    }


class TrialWriter(Protocol):
    """Writer for one tool's files."""

    title: str  # the tool, for messages
    folder: Path  # folder for all files

    def write(self, entry: TrialEntry, written: Written) -> Written:
        """Write the epochs after `written.epoch`, and an ended trial's end. Return the state now on disk.

        A killed process may have written more than `written`. The tool ignores these files, or they are removed.
        """
        ...

    def close(self) -> None:
        """Close all files."""
        ...
