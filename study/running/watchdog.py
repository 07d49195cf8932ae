"""Watchdog for hanging trials: kills the process from outside, because a hanging process cannot respond."""

import time
from collections.abc import Callable
from typing import Any, Final

import ray
from ray import tune

from study.ledger.entry import TIMED_OUT

# Longest time counted between two checks, in seconds: if the driver itself was delayed, reports may be waiting unread.
_LONGEST_LOOK: Final = 1.0


class Watchdog(tune.Callback):
    """Tune callback: kill a trial's process after too long a time without a report.

    If the scheduler stops trials early, Tune receives a report for every epoch. Otherwise a report covers the epochs
    within half a second. The clock restarts when the trial gets a process, which then loads the data, and at every
    report. Writing a checkpoint counts towards the limit. Trials waiting for a process are not watched.

    Args:
        timeout: seconds without a report.
        give_up: receives the trial identifier and the reason for the failure.
        now: monotonic clock, in seconds.
    """

    def __init__(
        self, timeout: float, give_up: Callable[[str, str], None], *, now: Callable[[], float] = time.monotonic
    ) -> None:
        self._timeout = timeout
        self._give_up = give_up
        self._now = now
        self._looked = now()
        self._silent: dict[Any, float] = {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Start watching a trial when it gets a process."""
        self._silent[trial] = 0.0

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Any],  # noqa: ARG002
        trial: Any,
        result: dict[str, Any],  # noqa: ARG002
        **info: Any,  # noqa: ARG002
    ) -> None:
        """Restart the clock at a report."""
        if trial in self._silent:
            self._silent[trial] = 0.0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Stop watching an ended trial."""
        self._silent.pop(trial, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Stop watching a trial after the process has died."""
        self.on_trial_complete(iteration, trials, trial, **info)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ARG002
        """Check all clocks. Tune's loop calls this at least ten times a second."""
        passed = min(self._now() - self._looked, _LONGEST_LOOK)
        self._looked = self._now()
        for trial in list(self._silent):
            self._silent[trial] += passed
            if self._silent[trial] > self._timeout:
                del self._silent[trial]
                self._end(trial)

    def _end(self, trial: Any) -> None:
        process = trial.temporary_state.ray_actor
        if process is None:  # the process was released a moment ago
            return
        self._give_up(
            trial.config["trial_id"],
            f"{TIMED_OUT} {self._timeout:g} s without a report (--trial-timeout); its process was ended",
        )
        ray.kill(process)

    def __getstate__(self) -> dict[str, Any]:
        return {}
