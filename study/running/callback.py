"""Tune callbacks of a study: stopping conditions, and recording of each trial."""

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ray import tune

from study.cli.progress import StudyProgress
from study.ledger.ledger import StudyLedger
from study.ledger.study_data import described
from study.running.cluster_watch import ClusterWatch
from study.running.trial_storage import TrialStorage
from study.search.optuna_mirror import Put
from trainables.spec.measures import MEASURES

if TYPE_CHECKING:
    from study.tracking.tracker import StudyTracker


class Stop(tune.Stopper):
    """Stopping condition of the search: interrupt by the user, time budget used up, failed recording, or lost cluster.

    The condition is checked between two results.

    Args:
        time_budget: seconds from now, or None.
    """

    def __init__(self, time_budget: float | None) -> None:
        self.interrupted = threading.Event()
        self.failure: Exception | None = None
        self.ledger: StudyLedger | None = None
        self.watch: ClusterWatch | None = None
        self.last_words: Callable[[], None] = lambda: None
        self._deadline = time.monotonic() + time_budget if time_budget is not None else None

    @property
    def out_of_time(self) -> bool:
        """Whether the time budget is used up."""
        return self._deadline is not None and time.monotonic() >= self._deadline

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        """Return False: no trial is stopped alone."""
        return False

    def stop_all(self) -> bool:
        """Return whether to end the search now. Running trials can be resumed later."""
        if self.failure is None and self.ledger is not None:
            self.failure = self.ledger.failure
        return self.interrupted.is_set() or self.out_of_time or self.failure is not None or self._cluster_is_lost

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

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudyCallback(tune.Callback):
    """Tune callback that writes results to the ledger, and passes them to the tracker, the mirror and the display."""

    def __init__(
        self,
        ledger: StudyLedger,
        tracker: "StudyTracker",
        mirror: Put,
        progress: StudyProgress,
        stop: Stop,
        storage: TrialStorage,
    ) -> None:
        self._ledger = ledger
        self._storage = storage
        self._tracker = tracker
        self._mirror = mirror
        self._progress = progress
        self._stop = stop

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Publish a trial that has got a process."""
        entry = self._ledger.entries[trial.config["trial_id"]]
        self._tracker.deliver(entry)
        self._mirror(entry)
        self._progress.trial_changed(entry, self._ledger)

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Any],  # noqa: ARG002
        trial: Any,
        result: dict[str, Any],
        **info: Any,  # noqa: ARG002
    ) -> None:
        """Record the reported epochs of a trial."""
        entry = self._ledger.entries[trial.config["trial_id"]]
        for note in result.get("notes", ()):
            self._progress.warn(note)
        try:
            if self._ledger.dataset is None and (dataset := result.get("dataset")):
                dataset = described(self._ledger.plan, dataset)
                self._ledger.record_dataset(dataset)
                self._tracker.know_dataset(dataset)
            self._ledger.record_facts(entry.trial_id, result.get("facts", {}))
            for epoch in result["epochs"]:
                measures: dict[str, float] = {name: float(epoch[name]) for name in MEASURES if name in epoch}
                self._ledger.record_epoch(entry.trial_id, epoch["epoch"], measures)
            self._ledger.record_calibration(entry.trial_id, result.get("calibration", {}))
            self._tracker.deliver(entry)
            self._mirror(entry)
            self._progress.trial_changed(entry, self._ledger)
        except OSError as error:
            self._stop.failure = error

    def on_checkpoint(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Any],  # noqa: ARG002
        trial: Any,  # noqa: ARG002
        checkpoint: Any,
        **info: Any,  # noqa: ARG002
    ) -> None:
        """Remove old checkpoints of a trial."""
        self._storage.keep_newest(checkpoint)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Clear the storage of an ended trial. The searcher has already recorded the end."""
        entry = self._ledger.entries[trial.config["trial_id"]]
        if entry.status is not None:
            self._progress.trial_changed(entry, self._ledger)
            self._storage.clear(trial.path)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Handle the death of a trial's process. The trial fails or continues in another process."""
        self.on_trial_complete(iteration, trials, trial, **info)
        entry = self._ledger.entries[trial.config["trial_id"]]
        if entry.status is None:
            self._progress.say(f"the process of {entry.trial_id} died; another goes on with it")

    def __getstate__(self) -> dict[str, Any]:
        return {}
