"""Watchdog for hanging trials: kills the process from outside, because a hanging process cannot respond."""

import time
from collections.abc import Callable
from typing import Any

import ray
from ray import tune

from study.ledger.entry import TIMED_OUT
from study.running.silence import Silence


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
        self._silence: Silence[Any] = Silence(timeout, now=now)
        self._watched: set[Any] = set()

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Start watching a trial when it gets a process."""
        self._silence.begin(trial)
        self._watched.add(trial)

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Any],  # noqa: ARG002
        trial: Any,
        result: dict[str, Any],  # noqa: ARG002
        **info: Any,  # noqa: ARG002
    ) -> None:
        """Restart the clock at a report."""
        if trial in self._watched:
            self._silence.begin(trial)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Stop watching an ended trial."""
        self._silence.end(trial)
        self._watched.discard(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Stop watching a trial after the process has died."""
        self.on_trial_complete(iteration, trials, trial, **info)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ARG002
        """Check all clocks. Tune's loop calls this at least ten times a second."""
        for trial in self._silence.exceeded():
            self._watched.discard(trial)
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
