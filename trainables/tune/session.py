"""One trial in a study, from the settings to the last report, without Ray."""

import math
import tempfile
import time
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import Any, Final
from weakref import WeakKeyDictionary

from trainables.costs.epoch import run_epoch
from trainables.costs.ledger import count_costs
from trainables.display.failures import TRACEBACK_HEADER, failure_text
from trainables.run.checkpoint import CHECKPOINT_FILE, CheckpointError, load_checkpoint, save_checkpoint
from trainables.run.run import DistillationRun
from trainables.run.workers import Workers
from trainables.spec.measures import OBJECTIVES
from trainables.spec.trial import TrialConfig
from trainables.storage.uris import is_uri, redact_place
from trainables.students.file import keep_student
from trainables.tune.cache import dataset_of, stores, teacher_of, teacher_outputs_of, teacher_path_of
from trainables.tune.travel import upload_student
from trainables.user_code.errors import UserCodeError
from trainables.user_code.loading import describe, line_of, remember_json

# A checkpoint takes a few milliseconds here and in the driver; at most one per second keeps the cost below one percent.
# A real network's epoch takes longer than a second, so at most one epoch is lost.
SECONDS_BETWEEN_CHECKPOINTS: Final = 1.0
BeginRun = Callable[[dict[str, Any]], DistillationRun]
Epoch = Callable[[DistillationRun], dict[str, float]]


class WorkerLostError(RuntimeError):
    """A trial lost a worker process; Tune should restart the trial from the checkpoint."""


class WorkerFailedError(RuntimeError):
    """Other workers in a trial raised errors. The message comes from `describe_failure`."""


class Reporting:
    """Collects the epochs of one trial until a report is due.

    Args:
        settings: trial settings; see `trainables.tune.trainable.DistillationTrainable`.
        trials: number of trials sharing this process's time.

    Attributes:
        saved_at: time of the trial's last checkpoint, or the trial's start.
        error: description of the error that ended the trial, or None.
    """

    def __init__(self, settings: Mapping[str, Any], *, trials: int = 1) -> None:
        self.error: str | None = None
        self.student_path: str | None = settings.get("student_path")
        self.saved_at = time.monotonic()
        self._trials = trials
        self._between: float = settings.get("seconds_between_reports", 0.0)
        self.open()

    def open(self) -> None:
        """Start a new report."""
        self._epochs: list[dict[str, float]] = []
        self._due = time.monotonic() + self._between

    def fail(self, error: Exception) -> None:
        """Mark the trial as failed."""
        self.error = describe_failure(error)

    def add(self, run: DistillationRun, measures: Mapping[str, float]) -> dict[str, Any] | None:
        """Add an epoch.

        Args:
            run: the trial, after the epoch.
            measures: epoch measures.

        Returns:
            The report if it is due, otherwise None.
        """
        self._epochs.append({"epoch": run.epoch, **measures})
        if run.finished or time.monotonic() >= self._due:
            return report(run, self._epochs, saved_at=self.saved_at, trials=self._trials)
        return None

    def failed(self) -> dict[str, Any]:
        """Return a failed trial's report, including the epochs before the error."""
        assert self.error is not None
        return failed_report(self.error, self._epochs)


class TrialSession:
    """One trial in progress, with reports.

    Args:
        settings: trial settings; see `trainables.tune.trainable.DistillationTrainable`.
        begin: builds the run from the settings.
        epoch: trains the run for one epoch and evaluates.
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
        """Train and evaluate until a report is due.

        Returns:
            Report with `epochs`, each completed epoch's measures; the last epoch's number and objective; `facts` about
            the trial; `finished`, whether the trial's last epoch is done, and then also `calibration`; `failed`, the
            error, if there was one; `notes` for the user, if there are any.
        """
        reporting = self.reporting
        reporting.open()
        while reporting.error is None:
            try:
                measures = self._epoch(self.run)
                save_student_if_requested(self.run, reporting.student_path)
            except WorkerLostError:
                raise  # handled by Tune as if this process was lost
            except Exception as error:
                reporting.fail(error)
                break
            if (result := reporting.add(self.run, measures)) is not None:
                return result
        return reporting.failed()

    def save(self, folder: Path) -> None:
        """Write a trial checkpoint."""
        self.reporting.saved_at = time.monotonic()
        save_checkpoint(self.run, folder)

    def load(self, folder: Path) -> None:
        """Load a checkpoint written by another process for the same trial."""
        load_checkpoint(self.run, folder)


def begin_run(settings: dict[str, Any], *, workers: Workers | None = None) -> DistillationRun:
    """Build a trial's run from settings and resume from the newest intact checkpoint, if there is one.

    Args:
        settings: trial settings; see `trainables.tune.trainable.DistillationTrainable`.
        workers: group of processes training the trial together; None if this process trains alone.
    """
    remember_json(settings.get("user_code", ()))
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
                if _resume_from(run, Path(folder)):
                    break
        except OSError as error:  # the storage cannot be reached
            add_note(f"a checkpoint could not be read ({error}); the trial resumes from the previous one")
    return run


def _resume_from(run: DistillationRun, folder: Path) -> bool:
    """Load the checkpoint in a folder and return whether this succeeded."""
    try:
        load_checkpoint(run, folder)
    except CheckpointError as error:
        if (folder / CHECKPOINT_FILE).exists():  # a killed process leaves folders without a checkpoint
            add_note(f"{error}; the trial resumes from the previous checkpoint")
        return False
    return True


def save_student_if_requested(run: DistillationRun, path: str | None) -> None:
    """Save a finished trial's student to `path`, if given; a write error becomes a note and the trial goes on.

    Args:
        run: the trial.
        path: path on this node, or a URI on a cluster without a shared folder.
    """
    if path is None or not run.finished:
        return
    try:
        if is_uri(path):
            with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
                student = Path(folder) / Path(path.partition("?")[0]).name
                keep_student(run, student)
                upload_student(student, path)
        else:
            keep_student(run, Path(path))
    except OSError as error:
        add_note(
            f"the student of a confirmed trial could not be saved to {redact_place(path)} ({error.strerror or error})"
        )


def report(
    run: DistillationRun, epochs: Sequence[Mapping[str, float]], *, saved_at: float, trials: int = 1
) -> dict[str, Any]:
    """Return a report for Tune: epochs, dataset, calibration, and `facts` about costs and splits.

    Args:
        run: the trial.
        epochs: `epoch` and measures for each epoch since the last report, at least one.
        saved_at: time of the last checkpoint, or the trial's start.
        trials: number of trials sharing this process's time. The interval between checkpoints grows by this factor,
            because each trial gets only this share of the time.
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
        **({"calibration": run.calibration, "answers": run.answers} if run.finished else {}),
        "finished": run.finished,
        "done": run.finished,
        "should_checkpoint": due and not run.finished,
        **_pending_notes(),
    }


def failed_report(error: str, epochs: Sequence[Mapping[str, float]]) -> dict[str, Any]:
    """Return a failed trial's report, with the completed `epochs`."""
    measures = {**dict.fromkeys(OBJECTIVES, math.nan), "epoch": len(epochs), "epochs": epochs}
    return {**measures, **_pending_notes(), "finished": False, "failed": error, "done": True}


def _pending_notes() -> dict[str, list[str]]:
    return {"notes": notes} if (notes := take_notes()) else {}


def _facts_of(run: DistillationRun) -> dict[str, float]:
    try:
        if run not in _costs:  # they stay the same, and a trial reports many times
            _costs[run] = count_costs(run).facts
        return _costs[run]
    except Exception as error:  # a custom method or network may raise any type; the trial itself is unaffected
        add_note(f"the costs of {run.config.method} could not be counted and are not recorded: {describe_error(error)}")
        return {}


_costs: WeakKeyDictionary[DistillationRun, dict[str, float]] = WeakKeyDictionary()
_notes: list[str] = []


def add_note(note: str) -> None:
    """Add a note for the user to this process's next report."""
    _notes.append(note)


def note_unwritten_checkpoint(trial_name: str, error: OSError) -> None:
    """Add a note about a checkpoint not written because of an error. The trial continues; only a resume loses time."""
    add_note(f"could not write a checkpoint of {trial_name} ({error}); the trial continues without it")


def take_notes() -> list[str]:
    """Return and clear the notes for the user, from this process and all open stores."""
    notes = [*_notes, *(note for store in stores.values() for note in store.take_notes())]
    _notes.clear()
    return notes


def describe_failure(error: Exception) -> str:
    """Return an error's description and, for an error in user code, the traceback from the user's file on."""
    if isinstance(error, WorkerFailedError):
        return str(error)
    cause = error.__context__
    if isinstance(error, UserCodeError) and cause is not None and line_of(cause) is not None:
        what = str(error).partition(f":\n{TRACEBACK_HEADER}")[0]
        return failure_text(describe_error(cause, what), describe(cause))
    return failure_text(describe_error(error), "" if line_of(error) is None else describe(error))


def describe_error(error: BaseException, what: str = "") -> str:
    """Return an error's type, message and place. The place is the last line in user code, if there is one.

    Args:
        error: the error.
        what: failed action, added to the message.
    """
    where = traceback.extract_tb(error.__traceback__)[-1]
    name, file, line = line_of(error) or (where.name, where.filename, where.lineno)
    return f"{type(error).__name__}: {error}{f'; {what}' if what else ''} (in {name}, {Path(file).name}:{line})"
