"""Interface of the writers of `study.tracking.trial_files`, and the settings that they write."""

from pathlib import Path
from typing import Any, Final, NamedTuple, Protocol

from study.ledger.entry import TrialEntry
from study.plan.plan import StudyPlan
from study.tracking.trial_run import trial_params

_LARGEST_EXACT: Final = 2**53  # integer in a double


class Written(NamedTuple):
    """State of a trial in the files.

    Args:
        attempt: attempt that wrote last.
        epoch: last epoch that is written, 0 for none.
        ended: whether the end of the attempt is written.
    """

    attempt: int = 1
    epoch: int = 0
    ended: bool = False


def exact_settings(plan: StudyPlan, entry: TrialEntry) -> dict[str, Any]:
    """Return the settings of a trial. Integers that a double cannot hold, such as seeds, are strings.

    TensorBoard stores all numbers as doubles, and so do the pages of Weights & Biases.
    """
    return {
        name: str(each) if type(each) is int and abs(each) > _LARGEST_EXACT else each
        for name, each in trial_params(plan, entry).items()
    }


class TrialWriter(Protocol):
    """Writer of the files of one tool."""

    title: str  # the tool, for messages
    folder: Path  # folder of all files

    def write(self, entry: TrialEntry, written: Written) -> Written:
        """Write the epochs behind `written.epoch`, and the end of an ended trial. Return the state that is on the disk.

        Files behind `written`, from a process that was killed, are not read again by the tool, or are removed.
        """
        ...

    def close(self) -> None:
        """Close all files."""
        ...
