"""Hooks before each epoch of a trial, for tests that interrupt a study."""

from collections.abc import Callable
from typing import Any


def before_each_epoch(run: Any, do: Callable[[int], None]) -> Any:
    """Call `do` with the epoch number before each epoch of a run. Return the run."""
    inner = run.train_epoch

    def train_epoch() -> dict[str, float]:
        do(run.epoch + 1)
        return inner()

    run.train_epoch = train_epoch
    return run
