"""Ray Tune schedulers for a study: they select the next trial and stop trials early."""

import math
from collections import deque
from typing import Any

from ray.tune.schedulers import ASHAScheduler, FIFOScheduler, TrialScheduler

from study.ledger.ledger import StudyLedger


class _NewTrialsFirst(FIFOScheduler):
    """Scheduler that assigns a free process to a trial without a process.

    Tune would assign a free process to the longest waiting trial. That trial's own process is still starting, and Tune
    would end it. If trials are shorter than the start of a process, no second process would ever start working. Tune
    would also scan all earlier trials for each choice.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._new: deque[Any] = deque()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Remember a trial until a process is requested for it."""
        super().on_trial_add(tune_controller, trial)
        self._new.append(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:  # noqa: ARG002
        """Return the next trial without a requested process. Tune itself starts trials whose process is ready."""
        while self._new:
            trial = self._new.popleft()
            if trial.status == trial.PENDING:
                return trial
        return None


class StudyFIFO(_NewTrialsFirst):
    """Scheduler that trains every trial to the end."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class SearchASHA(_NewTrialsFirst, ASHAScheduler):
    """ASHA for search trials only, with rungs rebuilt from the ledger.

    Controls and replicates are always trained to the end. Their means are reported, and a mean over only the surviving
    trials would be biased upwards.

    Args:
        ledger: study ledger.
    """

    def __init__(self, ledger: StudyLedger) -> None:
        epochs = ledger.plan.base.epochs
        super().__init__(
            time_attr="epoch",
            metric=ledger.plan.objective,
            mode="max",
            max_t=epochs,
            grace_period=1,
            reduction_factor=3,
            stop_last_trials=False,
        )
        for entry in ledger.in_stage("search"):
            for epoch, score in entry.scores.items():
                self._brackets[0].on_result(_named(entry.trial_id), epoch, score)

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Add a trial. Only search trials have rungs."""
        self._new.append(trial)
        if trial.config["stage"] == "search":
            ASHAScheduler.on_trial_add(self, tune_controller, _named(trial.config["trial_id"]))

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:
        """Return STOP for a search trial in the lower part of a rung, or CONTINUE."""
        if trial.config["stage"] != "search":
            return str(TrialScheduler.CONTINUE)
        return str(super().on_trial_result(tune_controller, _named(trial.config["trial_id"]), result))

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:
        """Add the last result to the rungs, unless it is NaN."""
        if math.isnan(result.get(self.metric, math.nan)):
            self.on_trial_remove(tune_controller, trial)
        elif trial.config["stage"] == "search":
            super().on_trial_complete(tune_controller, _named(trial.config["trial_id"]), result)

    def on_trial_error(self, tune_controller: Any, trial: Any) -> None:
        """Forget a failed trial without changing the rungs."""
        self.on_trial_remove(tune_controller, trial)

    def on_trial_remove(self, tune_controller: Any, trial: Any) -> None:  # noqa: ARG002
        """Forget a trial."""
        self._trial_info.pop(trial.config["trial_id"], None)

    def __getstate__(self) -> dict[str, Any]:
        return {}


class _NamedTrial:
    """Minimal trial for ASHA's rungs. Holds the study's trial identifier instead of Tune's."""

    def __init__(self, trial_id: str) -> None:
        self.trial_id = trial_id


def _named(trial_id: str) -> Any:
    return _NamedTrial(trial_id)


def make_scheduler(ledger: StudyLedger) -> TrialScheduler:
    """Return the scheduler named in the plan."""
    return SearchASHA(ledger) if ledger.plan.scheduler == "asha" else StudyFIFO()
