"""Trials with something to do before each of their epochs, for tests that break a study in the middle."""

from collections.abc import Callable
from typing import Any


def before_each_epoch(run: Any, do: Callable[[int], None]) -> Any:
    """Call `do` with the number of the epoch before a run trains it. Returns the run."""
    inner = run.train_epoch

    def train_epoch() -> dict[str, float]:
        do(run.epoch + 1)
        return inner()

    run.train_epoch = train_epoch
    return run
