"""Stopping and recording as callbacks for Ray Tune."""

from collections.abc import Callable
from typing import Any, Final

from ray import tune

from study.cli.progress import StudyProgress
from study.running.recorder import TrialRecorder
from study.running.stop import Stop
from study.running.travel import StudentCollector
from study.running.trial_storage import TrialStorage

_NAMING: Final = ("trial_id", "life")  # the settings that callbacks read from an ended trial


class TuneStopper(tune.Stopper):
    """Ray Tune stopper based on a `Stop`.

    Args:
        stop: the stopping condition.
    """

    def __init__(self, stop: Stop) -> None:
        self._stop = stop

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:  # noqa: ARG002
        """Return False: this stopper does not stop single trials."""
        return False

    def stop_all(self) -> bool:
        """Return whether to end the search now."""
        return self._stop.stop_all()

    def __getstate__(self) -> dict[str, Any]:
        return {}


class StudyCallback(tune.Callback):
    """Tune callback for recording trials and removing checkpoints.

    Args:
        recorder: recorder for trials.
        progress: progress display for the user.
        storage: trial checkpoints.
        returned: called with the identifier of a trial that a node returns because the node is being taken away.
        students: collector of students from storage, if the nodes share no folder.
    """

    def __init__(
        self,
        recorder: TrialRecorder,
        progress: StudyProgress,
        storage: TrialStorage,
        returned: Callable[[str], None] = lambda _: None,
        students: StudentCollector | None = None,
    ) -> None:
        self._students = students
        self._returned = returned
        self._leaving: dict[str, str] = {}
        self._recorder = recorder
        self._progress = progress
        self._storage = storage

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Publish a trial after it gets a process."""
        self._recorder.started(trial.config["trial_id"])

    def on_trial_result(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Any],  # noqa: ARG002
        trial: Any,
        result: dict[str, Any],
        **info: Any,  # noqa: ARG002
    ) -> None:
        """Record a trial's reported epochs. A finished student is fetched first, for the trial's run in MLflow."""
        if (node := result.get("preempted")) is not None:
            self._leaving[trial.config["trial_id"]] = node
            self._returned(trial.config["trial_id"])
        if self._students is not None and result.get("finished"):
            try:
                self._students.collect(trial.config["trial_id"])
            except OSError as error:
                self._progress.warn(f"{error}; the student is fetched at the end of the study")
        self._recorder.reported(trial.config["trial_id"], result)

    def on_checkpoint(
        self,
        iteration: int,  # noqa: ARG002
        trials: list[Any],  # noqa: ARG002
        trial: Any,  # noqa: ARG002
        checkpoint: Any,
        **info: Any,  # noqa: ARG002
    ) -> None:
        """Remove a trial's old checkpoints."""
        self._storage.keep_newest(checkpoint.path)

    def on_trial_complete(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Remove an ended trial's checkpoints. The searcher has already recorded the end."""
        self._clear_if_ended(trial)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:  # noqa: ARG002
        """Handle a dead trial process. The trial fails or continues in another process."""
        node = self._leaving.pop(trial.config["trial_id"], None)
        if self._clear_if_ended(trial):
            return
        if node is not None:
            self._progress.say(
                f"{trial.config['trial_id']} was returned by node {node}, which is being taken away; it goes on from a "
                "checkpoint"
            )
        else:
            self._progress.say(f"the process of {trial.config['trial_id']} died; another goes on with it")

    def _clear_if_ended(self, trial: Any) -> bool:
        if not self._recorder.ended(trial.config["trial_id"]):
            return False
        self._storage.clear(trial.path)
        forget_results(trial)
        return True

    def __getstate__(self) -> dict[str, Any]:
        return {}


def forget_results(trial: Any) -> None:
    """Remove an ended trial's results and settings from Tune's memory. The ledger has them.

    Tune keeps the settings, the last report and running means of every number in it until the experiment ends, and then
    once more as JSON. In a study of thousands of trials, this was most of the driver's memory.

    Args:
        trial: Tune trial that has ended.
    """
    known = trial.run_metadata
    known.last_result = {"trial_id": trial.trial_id, "done": True}  # an empty one would be asked for at the dead actor
    known.metric_analysis = {}
    known.metric_n_steps = {}
    trial.config = {name: trial.config[name] for name in _NAMING if name in trial.config}
    vars(trial)["_Trial__unresolved_config"] = trial.config  # Tune's second reference to the settings
