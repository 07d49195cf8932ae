"""One trial of a study, from its settings to its last report; it knows no Ray."""

import math
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final

from trainables.costs.epoch import run_epoch
from trainables.costs.ledger import count_costs
from trainables.run.checkpoint import CHECKPOINT_FILE, CheckpointError, load_checkpoint, save_checkpoint
from trainables.run.run import DistillationRun
from trainables.run.workers import Workers
from trainables.spec.measures import OBJECTIVES
from trainables.spec.trial import TrialConfig
from trainables.students.file import keep_student
from trainables.tune.cache import dataset_of, stores, teacher_of, teacher_outputs_of, teacher_path_of

# A checkpoint costs a few milliseconds here and in the driver: at most one a second keeps that under a percent,
# and an epoch of a real network takes longer, so that it loses at most one.
SECONDS_BETWEEN_CHECKPOINTS: Final = 1.0


BeginRun = Callable[[dict[str, Any]], DistillationRun]
Epoch = Callable[[DistillationRun], dict[str, float]]


class WorkerLostError(RuntimeError):
    """A process that takes part in a trial has ended: Tune is to begin the trial again, from its checkpoint."""


class Reporting:
    """Gathers the epochs of one trial, and tells of them when a report is due.

    Args:
        settings: see `trainables.tune.trainable.DistillationTrainable`.
        trials: how many share the time of the process.

    Attributes:
        saved_at: when the trial's last checkpoint was written, or it began.
        error: what ended the trial, if something did.
    """

    def __init__(self, settings: Mapping[str, Any], *, trials: int = 1) -> None:
        self.error: str | None = None
        self.student_path: str | None = settings.get("student_path")
        self.saved_at = time.monotonic()
        self._trials = trials
        self._between: float = settings.get("seconds_between_reports", 0.0)
        self.open()

    def open(self) -> None:
        """Begin a report."""
        self._epochs: list[dict[str, float]] = []
        self._due = time.monotonic() + self._between

    def fail(self, error: Exception) -> None:
        """End the trial, as failed."""
        self.error = describe_error(error)

    def add(self, run: DistillationRun, measures: Mapping[str, float]) -> dict[str, Any] | None:
        """Add an epoch.

        Args:
            run: the trial, after the epoch.
            measures: of the epoch.

        Returns:
            The report, if it is due.
        """
        self._epochs.append({"epoch": run.epoch, **measures})
        if run.finished or time.monotonic() >= self._due:
            return report(run, self._epochs, saved_at=self.saved_at, trials=self._trials)
        return None

    def failed(self) -> dict[str, Any]:
        """The report of a trial that has failed, with its epochs before that."""
        assert self.error is not None
        return failed_report(self.error, self._epochs)


class TrialSession:
    """One trial in progress, with its reports.

    Args:
        settings: see `trainables.tune.trainable.DistillationTrainable`.
        begin: makes the trial of them.
        epoch: trains an epoch of it and evaluates.
    """

    run: DistillationRun

    def __init__(self, settings: dict[str, Any], *, begin: BeginRun, epoch: Epoch = run_epoch) -> None:
        self.reporting = Reporting(settings)
        self._epoch = epoch
        try:
            self.run = begin(settings)
        except Exception as error:
            self.reporting.fail(error)

    def step(self) -> dict[str, Any]:
        """Train and evaluate, until a report is due.

        Returns:
            `epochs`, the measures of each that went well; the last one's number and objective; the trial's `facts`;
            `finished`, whether it was its last, and with it its `calibration`; `failed` where it went wrong; and
            `notes` where there is something that a person should know.
        """
        reporting = self.reporting
        reporting.open()
        while reporting.error is None:
            try:
                measures = self._epoch(self.run)
                keep_if_asked(self.run, reporting.student_path)
            except WorkerLostError:
                raise  # as if it were this process that is lost
            except Exception as error:
                reporting.fail(error)
                break
            if (told := reporting.add(self.run, measures)) is not None:
                return told
        return reporting.failed()

    def save(self, folder: Path) -> None:
        """Write the trial's state."""
        self.reporting.saved_at = time.monotonic()
        save_checkpoint(self.run, folder)

    def load(self, folder: Path) -> None:
        """Go on from a trial's state, in another process than the one that wrote it."""
        load_checkpoint(self.run, folder)


def begin_run(settings: dict[str, Any], *, workers: Workers | None = None) -> DistillationRun:
    """The trial that settings describe, from its newest whole checkpoint if it has any.

    Args:
        settings: see `trainables.tune.trainable.DistillationTrainable`.
        workers: the processes that train it together, if it is not this one alone.
    """
    trial = TrialConfig(**settings["config"])
    path, device, outputs = teacher_path_of(settings, trial), settings.get("device", "cpu"), None
    dataset = dataset_of(trial, settings["data_root"], path)
    teacher = teacher_of(path, trial, dataset) if path is not None else None
    if teacher is not None and not trial.method_spec.needs_live_teacher:
        outputs = teacher_outputs_of(settings.get("teacher_outputs"), trial, dataset, teacher, device)
    reads_test = settings.get("reads_test", False)
    run = DistillationRun(
        trial, dataset, teacher, device=device, teacher_outputs=outputs, reads_test=reads_test, workers=workers
    )
    for place in settings.get("checkpoints", []):
        try:
            with place.as_directory() if hasattr(place, "as_directory") else nullcontext(place) as folder:
                if _went_on(run, Path(folder)):
                    break
        except OSError as error:  # of a storage that cannot be reached
            _notes.append(f"a checkpoint could not be fetched ({error}); the trial goes on from the one before")
    return run


def _went_on(run: DistillationRun, folder: Path) -> bool:
    """Whether the trial has taken over the state that lies in a folder."""
    try:
        load_checkpoint(run, folder)
    except CheckpointError as error:
        if (folder / CHECKPOINT_FILE).exists():  # a process that was killed leaves folders without one
            _notes.append(f"{error}; the trial goes on from the one before")
        return False
    return True


def keep_if_asked(run: DistillationRun, path: str | None) -> None:
    """Keep the student of a trial that is finished where its settings say so; without a disk the trial stands too."""
    if path is None or not run.finished:
        return
    try:
        keep_student(run, Path(path))
    except OSError as error:
        _notes.append(f"the student of a confirmed trial could not be kept at {path} ({error.strerror})")


def report(
    run: DistillationRun, epochs: Sequence[Mapping[str, float]], *, saved_at: float, trials: int = 1
) -> dict[str, Any]:
    """What Tune is told of a trial: its epochs, its data, its calibration, and `facts` on its costs and splits.

    Args:
        run: the trial.
        epochs: `epoch` and measures of each since the last report, one at least.
        saved_at: when its last checkpoint was written, or it began.
        trials: how many share the time; each is saved as often as if it had its part of it alone.
    """
    due = time.monotonic() - saved_at >= SECONDS_BETWEEN_CHECKPOINTS * trials
    return {
        **{name: epochs[-1][name] for name in OBJECTIVES if name in epochs[-1]},
        "epoch": run.epoch,
        "epochs": epochs,
        "facts": {**_facts_of(run), **run.data_facts()},
        "dataset": {
            "digest": run.dataset.digest,
            "train": len(run.dataset.train),
            "validation": len(run.dataset.validation),
            **run.dataset.source_counts,
        },
        **({"calibration": run.calibration} if run.finished else {}),
        "finished": run.finished,
        "done": run.finished,
        "should_checkpoint": due and not run.finished,
        **_notes_of_now(),
    }


def failed_report(error: str, epochs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """What Tune is told of a trial that went wrong, after `epochs` that had not."""
    told = {**dict.fromkeys(OBJECTIVES, math.nan), "epoch": len(epochs), "epochs": epochs}
    return {**told, **_notes_of_now(), "finished": False, "failed": error, "done": True}


def _notes_of_now() -> dict[str, list[str]]:
    return {"notes": notes} if (notes := take_notes()) else {}


def _facts_of(run: DistillationRun) -> dict[str, float]:
    try:
        return count_costs(run).facts
    except Exception as error:  # whatever a method or a net of somebody's own does: the trial itself is sound
        _notes.append(
            f"what {run.config.method} costs could not be counted, {describe_error(error)}; it goes unrecorded"
        )
        return {}


_notes: list[str] = []


def add_note(note: str) -> None:
    """Add something that a person should know, for the next report of this process."""
    _notes.append(note)


def take_notes() -> list[str]:
    """What a person should know of this process's stores, and of what it could not count; each is told once."""
    notes = [*_notes, *(note for store in stores.values() for note in store.take_notes())]
    _notes.clear()
    return notes


def describe_error(error: Exception) -> str:
    """What went wrong, and where."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (in {where.name}, {Path(where.filename).name}:{where.lineno})"
