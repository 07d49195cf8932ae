"""Stopping condition for a study's search, for every executor."""

import threading
import time
from collections.abc import Callable
from typing import Protocol

from study.ledger.ledger import StudyLedger
from study.running.start import Start


class LossWatch(Protocol):
    """Detector for a lost cluster; see `study.running.cluster_watch`."""

    lost: str | None

    def check(self) -> str | None:
        """Check now. Return a description of the loss, or None."""
        ...

    def dismiss(self) -> None:
        """Stop watching."""
        ...


class Stop:
    """Stopping condition for the search.

    The search ends on the user's interrupt, a used-up time budget, a failed recording, a lost cluster, or one error in
    all trials.

    The condition is checked between two results. `start` is the study start by this command.

    Args:
        time_budget: seconds from now, or None.
    """

    def __init__(self, time_budget: float | None) -> None:
        self.interrupted = threading.Event()
        self.failure: Exception | None = None
        self.failing_alike = False
        self.ledger: StudyLedger | None = None
        self.start = Start()
        self.watch: LossWatch | None = None
        self.last_words: Callable[[], None] = lambda: None
        self._deadline = time.monotonic() + time_budget if time_budget is not None else None

    @property
    def out_of_time(self) -> bool:
        """Whether the time budget is used up."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def stop_all(self) -> bool:
        """Return whether to end the search now. Running trials can be resumed later."""
        if self.failure is None and self.ledger is not None:
            self.failure = self.ledger.failure
        ends = self.interrupted.is_set() or self.out_of_time or self.failing_alike
        return ends or self.failure is not None or self._cluster_is_lost

    @property
    def _cluster_is_lost(self) -> bool:
        return self.watch is not None and self.watch.lost is not None

    def lost_the_cluster(self) -> bool:
        """Return whether the cluster is lost, by a check now.

        An error caused by the loss may arrive before the regular check notices the loss.
        """
        return self.watch is not None and self.watch.check() is not None

    def __enter__(self) -> "Stop":
        return self

    def __exit__(self, *_: object) -> None:
        if self.watch is not None:
            self.watch.dismiss()
