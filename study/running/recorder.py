"""Recording of trials, for every executor."""

from typing import TYPE_CHECKING, Any, Final

from study.cli.progress import StudyProgress
from study.ledger.entry import TrialEntry
from study.ledger.ledger import StudyLedger
from study.ledger.study_data import described
from study.running.same_failure import SameFailure
from study.running.stop import Stop
from study.search.optuna_mirror import Put
from trainables.display.failures import kind_of, traceback_of
from trainables.spec.measures import MEASURES

if TYPE_CHECKING:
    from study.tracking.tracker import StudyTracker

_SHOWN: Final = 16  # characters of a digest


class TrialRecorder:
    """Writes results to the ledger, and passes them to the tracker, the mirror and the display.

    Args:
        ledger: study ledger.
        tracker: the study's MLflow tracker.
        mirror: mirror for search trials.
        progress: progress display for the user.
        stop: receives write errors.
    """

    def __init__(
        self, ledger: StudyLedger, tracker: "StudyTracker", mirror: Put, progress: StudyProgress, stop: Stop
    ) -> None:
        self._ledger = ledger
        self._tracker = tracker
        self._mirror = mirror
        self._progress = progress
        self._stop = stop
        self._on_other_data: set[str] = set()
        self._shown_failures: set[tuple[str, str]] = set()
        self._same_failure = SameFailure(ledger)

    def started(self, trial_id: str) -> None:
        """Publish a starting trial."""
        entry = self._ledger.entries[trial_id]
        self._tracker.deliver(entry)
        self._mirror(entry)
        self._progress.trial_changed(entry, self._ledger)

    def _check_same_data(self, trial_id: str, digest: str) -> None:
        """Warn once about a trial with other data than the first trial, e.g. on a node with other files."""
        known = self._ledger.dataset
        if known is None or known["digest"] == digest or trial_id in self._on_other_data:
            return
        self._on_other_data.add(trial_id)
        self._progress.warn(
            f"trial {trial_id} read other data than the first trial: their digests are {digest[:_SHOWN]} and "
            f"{known['digest'][:_SHOWN]}. Scores on different data cannot be compared: give all nodes the same files, "
            "and start a new study"
        )

    def reported(self, trial_id: str, result: dict[str, Any]) -> None:
        """Record a trial's reported epochs; see `trainables.tune.session.TrialSession.step`."""
        entry = self._ledger.entries[trial_id]
        for note in result.get("notes", ()):
            self._progress.warn(note)
        try:
            # A confirmation trial may have another split. The study's data are described by the first split.
            is_first_split = entry.config.split_number == 0
            if is_first_split and (dataset := result.get("dataset")):
                self._check_same_data(trial_id, dataset["digest"])
                if self._ledger.dataset is None:
                    dataset = described(self._ledger.plan, dataset)
                    self._ledger.record_dataset(dataset)
                    self._tracker.register_dataset(dataset)
            self._ledger.record_facts(entry.trial_id, result.get("facts", {}))
            for epoch in result["epochs"]:
                measures: dict[str, float] = {name: float(epoch[name]) for name in MEASURES if name in epoch}
                self._ledger.record_epoch(entry.trial_id, epoch["epoch"], measures)
            self._ledger.record_calibration(entry.trial_id, result.get("calibration", {}))
            self._ledger.record_answers(entry.trial_id, result.get("answers", {}))
            self._tracker.deliver(entry)
            self._mirror(entry)
            self._progress.trial_changed(entry, self._ledger)
        except OSError as error:
            self._stop.failure = error

    def ended(self, trial_id: str) -> bool:
        """Show an ended trial, already recorded by the search. Return whether the end is final."""
        entry = self._ledger.entries[trial_id]
        if entry.status is not None:
            self._progress.trial_changed(entry, self._ledger)
        if entry.status == "failed" and entry.error:
            self._failed(entry, entry.error)
        return entry.status is not None

    def _failed(self, entry: TrialEntry, error: str) -> None:
        """Show the traceback of an error in the user's code, once for all trials with the same error."""
        if (traceback := traceback_of(error)) and kind_of(error) not in self._shown_failures:
            self._shown_failures.add(kind_of(error))
            self._progress.say(f"{entry.name} ({entry.trial_id}) failed in your code:\n{traceback}")
        self._stop.failing_alike = self._stop.failing_alike or self._same_failure.found()
