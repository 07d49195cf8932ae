"""How one run of a study ended."""

from dataclasses import dataclass

from study.ledger.ledger import StudyLedger


@dataclass(frozen=True)
class StudyRun:
    """How one run of a study ended.

    Args:
        ledger: the study's trials.
        interrupted: a person stopped it.
        out_of_time: the time budget was used up with work left.
        seconds: wall time of this run.
    """

    ledger: StudyLedger
    interrupted: bool
    out_of_time: bool
    seconds: float

    @property
    def complete(self) -> bool:
        """Whether no trial is left to run."""
        return not (self.interrupted or self.out_of_time) and not self.ledger.unfinished

    @property
    def incomplete_because(self) -> str | None:
        """Why there is work left, in words; None if there is none."""
        if self.complete:
            return None
        return "interrupted" if self.interrupted else "out of time" if self.out_of_time else "unfinished"
