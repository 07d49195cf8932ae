"""Ray Tune schedulers for a study: they select the next trial and stop trials early."""

import math
from collections import deque
from typing import Any

from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from study.ledger.ledger import StudyLedger
from study.search.rungs import Rungs


class _NewTrialsFirst(FIFOScheduler):
    """Scheduler: assign a free process to a trial without a process.

    Tune would assign a free process to the longest waiting trial. The waiting trial's own process is still starting,
    and Tune would end this process. If trials are shorter than a process start, no second process would ever start
    working. Tune would also scan all earlier trials for each choice.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._new: deque[Any] = deque()

    def on_trial_add(self, tune_controller: Any, trial: Any) -> None:
        """Remember a trial until a process is requested for it."""
        super().on_trial_add(tune_controller, trial)
        self._new.append(trial)

    def choose_trial_to_run(self, tune_controller: Any) -> Any:  # noqa: ARG002
        """Return the next trial without a requested process. Tune itself starts trials with a ready process."""
        while self._new:
            trial = self._new.popleft()
            if trial.status == trial.PENDING:
                return trial
        return None


class StudyFIFO(_NewTrialsFirst):
    """Scheduler without early stopping."""

    def __getstate__(self) -> dict[str, Any]:
        return {}


class SearchASHA(_NewTrialsFirst):
    """ASHA for search trials only; see `study.search.rungs`.

    Args:
        ledger: study ledger.
    """

    def __init__(self, ledger: StudyLedger) -> None:
        super().__init__()
        self._metric = self._objective = ledger.plan.objective  # the first is Tune's
        self.rungs = Rungs(ledger)

    def on_trial_result(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> str:  # noqa: ARG002
        """Return STOP for a search trial in a rung's lower part, or CONTINUE."""
        return str(TrialScheduler.CONTINUE if self._enter(trial, result) else TrialScheduler.STOP)

    def on_trial_complete(self, tune_controller: Any, trial: Any, result: dict[str, Any]) -> None:  # noqa: ARG002
        """Add the last result to the rungs, unless NaN, as for a failed trial."""
        if not math.isnan(result.get(self._objective, math.nan)):
            self._enter(trial, result)

    def _enter(self, trial: Any, result: dict[str, Any]) -> bool:
        if trial.config["stage"] != "search" or self._objective not in result:
            return True
        return self.rungs.enter(trial.config["trial_id"], result["epoch"], result[self._objective])

    def __getstate__(self) -> dict[str, Any]:
        return {}


def make_scheduler(ledger: StudyLedger) -> TrialScheduler:
    """Return the scheduler named in the plan."""
    return SearchASHA(ledger) if ledger.plan.scheduler == "asha" else StudyFIFO()
