"""Schedulers of a study: which trial begins next, and which is stopped early."""

import math
from collections import deque
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from study.ledger.ledger import StudyLedger
from study.stages.promising import promising_configs as promising_configs


class _NewTrialsFirst(FIFOScheduler):
    """Gives a process that has become free to a trial that has none.

    Tune would give it to the longest waiting trial, which is one whose own process is still starting, and end that
    process: where a trial takes less time than a process to start, a second one never comes to work. It would also
    look at every trial there ever was to find it.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._new: deque[Any] = deque()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Remember the trial until it is given a process."""
        super().on_trial_add(tune_controller, trial)
        self._new.append(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:  # noqa: ARG002
        """The next trial that no process was asked for yet; Tune itself sees to those that wait for theirs."""
        while self._new:
            trial = self._new.popleft()
            if trial.status == trial.PENDING:
                return trial
        return None


class StudyFIFO(_NewTrialsFirst):
    """Trains every trial to its end."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class SearchASHA(_NewTrialsFirst, ASHAScheduler):
    """ASHA over the trials of the search alone, its rungs rebuilt from the ledger.

    Controls and replicates are always trained to the end: their means are compared, and a mean over those that
    survived would flatter.

    Args:
        ledger: the study's trials.
    """

    def __init__(self, ledger: StudyLedger, *, grace_period: int = 1, reduction_factor: float = 3) -> None:
        epochs = ledger.plan.base.epochs
        super().__init__(
            time_attr="epoch",
            metric=ledger.plan.objective,
            mode="max",
            max_t=epochs,
            grace_period=min(grace_period, epochs),
            reduction_factor=reduction_factor,
            stop_last_trials=False,
        )
        for entry in ledger.in_stage("search"):
            for epoch, score in entry.scores.items():
                self._brackets[0].on_result(_named(entry.trial_id), epoch, score)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Only trials of the search have rungs."""
        self._new.append(trial)
        if trial.config["stage"] == "search":
            ASHAScheduler.on_trial_add(self, tune_controller, _named(trial.config["trial_id"]))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """STOP for a trial of the search in the lower part of its rung."""
        if trial.config["stage"] != "search":
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, _named(trial.config["trial_id"]), result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Enter the last result into its rung, unless it is not a number."""
        if math.isnan(result.get(self.metric, math.nan)):
            self.on_trial_remove(tune_controller, trial)
        elif trial.config["stage"] == "search":
            super().on_trial_complete(tune_controller, _named(trial.config["trial_id"]), result)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """A failed trial leaves its rungs as they are."""
        self.on_trial_remove(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002
        """Forget a trial."""
        self._trial_info.pop(trial.config["trial_id"], None)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _NamedTrial:
    """All that ASHA asks of a trial: the identifier under which its rungs remember it, ours instead of Tune's."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


def _named(trial_id: str) -> Any:
    return _NamedTrial(trial_id)


def make_scheduler(ledger: StudyLedger) -> TrialScheduler:
    """The scheduler that the plan names."""
    return SearchASHA(ledger) if ledger.plan.scheduler == "asha" else StudyFIFO()
