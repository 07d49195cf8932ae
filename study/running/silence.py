"""Clock for work that must report now and then: measures the time without a report."""

import time
from collections.abc import Callable, Hashable
from typing import Final, Generic, TypeVar

# Longest time counted between two checks, in seconds: if the study's process itself was delayed, reports may be waiting
# unread.
LONGEST_LOOK: Final = 1.0
Work = TypeVar("Work", bound=Hashable)


class Silence(Generic[Work]):
    """Seconds without a report, for each piece of work.

    Args:
        timeout: largest number of seconds.
        now: monotonic clock, in seconds.
    """

    def __init__(self, timeout: float, *, now: Callable[[], float] = time.monotonic) -> None:
        self._timeout = timeout
        self._now = now
        self._looked = now()
        self._silent: dict[Work, float] = {}

    def begin(self, work: Work) -> None:
        """Watch a piece of work, or restart the clock at a report."""
        self._silent[work] = 0.0

    def end(self, work: Work) -> None:
        """Stop watching."""
        self._silent.pop(work, None)

    def exceeded(self) -> list[Work]:
        """Check all clocks. Return the work that was silent for too long; it is no longer watched."""
        passed = min(self._now() - self._looked, LONGEST_LOOK)
        self._looked = self._now()
        found = []
        for work in list(self._silent):
            self._silent[work] += passed
            if self._silent[work] > self._timeout:
                del self._silent[work]
                found.append(work)
        return found
