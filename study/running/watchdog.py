"""Ends trials that hang: their process is killed from outside, as one that hangs cannot be asked."""

import time
from collections.abc import Callable
from typing import Any, Final

import ray
from ray import tune

from study.ledger.ledger import TIMED_OUT

# The most that counts between two looks: a driver that was held up itself has reports waiting that it has not read.
_LONGEST_LOOK: Final = 1.0


class Watchdog(tune.Callback):
    """Kills the process of a trial that has not reported for too long.

    A report is what Tune hears of a trial: of every epoch with a scheduler that stops trials early, else of the epochs
    of half a second. The time begins anew when the trial is given its process (which then loads its data), and with
    every report; in it falls the writing of a checkpoint. A trial that waits for a process is not watched.

    Args:
        timeout: seconds without a report.
        give_up: hears of a trial, by our identifier, that it fails, and why.
        now: a clock that is never set back.
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
        """It has a process now."""
        self._silent[trial] = 0.0

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Any],  # noqa: ARG002
        trial: Any,
        result: dict[str, Any],  # noqa: ARG002
        **info: Any,  # noqa: ARG002
    ) -> None:
        """It reported."""
        if trial in self._silent:
            self._silent[trial] = 0.0

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """It ended."""
        self._silent.pop(trial, None)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Its process died."""
        self.on_trial_complete(iteration, trials, trial, **info)

    def on_step_begin(self, iteration: int, trials: list[Any], **info: Any) -> None:  # noqa: ARG002
        """Tune's loop turns, ten times a second and more."""
        passed = min(self._now() - self._looked, _LONGEST_LOOK)
        self._looked = self._now()
        for trial in list(self._silent):
            self._silent[trial] += passed
            if self._silent[trial] > self._timeout:
                del self._silent[trial]
                self._end(trial)

    def _end(self, trial: Any) -> None:
        process = trial.temporary_state.ray_actor
        if process is None:  # it has just been taken from it
            return
        self._give_up(
            trial.config["trial_id"],
            f"{TIMED_OUT} {self._timeout:g} s without a report (--trial-timeout); its process was ended",
        )
        ray.kill(process)

    def __getstate__(self) -> dict[str, Any]:
        return {}
