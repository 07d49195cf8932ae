"""Result of one study run."""

from dataclasses import dataclass

from study.ledger.ledger import StudyLedger


@dataclass(frozen=True)
class StudyRun:
    """Result of one study run.

    Args:
        ledger: study ledger.
        interrupted: whether the user stopped the run.
        out_of_time: whether the time budget ended the run before all trials ended.
        seconds: wall time of the run in seconds.
        failed_alike: whether the run was ended because all trials failed with the same error.
    """

    ledger: StudyLedger
    interrupted: bool
    out_of_time: bool
    seconds: float
    failed_alike: bool = False

    @property
    def complete(self) -> bool:
        """Whether the run ended with no trial left to run."""
        return not (self.interrupted or self.out_of_time or self.failed_alike) and not self.ledger.unfinished

    @property
    def incomplete_because(self) -> str | None:
        """Reason for remaining work, or None if the study is complete."""
        if self.complete:
            return None
        reasons = {
            "interrupted": self.interrupted,
            "out of time": self.out_of_time,
            "all trials failed alike": self.failed_alike,
        }
        return next((reason for reason, holds in reasons.items() if holds), "unfinished")
