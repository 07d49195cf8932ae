"""The trial as Ray Tune sees it: glue only; everything it calls runs, and is tested, without Ray."""

import json
import math
import tempfile
import time
import traceback
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import cache
from pathlib import Path
from typing import Any, Final, NamedTuple

import ray
from ray import tune

from trainables.checkpoint import CHECKPOINT_FILE, CheckpointError, load_checkpoint, save_checkpoint
from trainables.data import load_dataset
from trainables.data.dataset import Dataset
from trainables.data.views import num_slots
from trainables.data_parallel import Workers
from trainables.measures import OBJECTIVES
from trainables.remote_folder import RemoteFolder, node_cache
from trainables.student_file import keep_student
from trainables.teacher.files import (
    ensure_teacher,
    find_tokeniser,
    load_teacher,
    notes_on_given_teacher,
    stored_path,
    teacher_digest,
)
from trainables.teacher.frozen import FrozenTeacher
from trainables.teacher_outputs_store import ROWS_PER_SHARD, Shard, StoredTeacherOutputs, TeacherOutputsStore
from trainables.training import DistillationRun, use_one_thread
from trainables.trial import TrialConfig
from trainables.uris import is_uri

# A checkpoint costs a few milliseconds here and in the driver: at most one a second keeps that under a percent,
# and an epoch of a real network takes longer, so that it loses at most one.
SECONDS_BETWEEN_CHECKPOINTS: Final = 1.0


class NothingKept(NamedTuple):
    """What Tune is told instead of where a checkpoint is."""

    checkpoint: None = None
    metrics: Mapping[str, Any] = {}


class WorkerLostError(RuntimeError):
    """A process that takes part in a trial has ended: Tune is to begin the trial again, from its checkpoint."""


class DistillationTrainable(tune.Trainable):
    """One trial; a step is an epoch, or as many as there is time for until the next report.

    Its Tune config holds `config` (the fields of `TrialConfig`), `data_root`, `teacher_path` (None where no teacher
    is needed), `own_teachers` (paths by the methods that have a teacher to themselves), `teacher_outputs` (`location`
    and `dtype` of the stored ones, or a reference to that, or None for a live teacher), `device`, `checkpoints`:
    folders, or Tune's checkpoints on storage, to go on from, newest first, one that is damaged being passed over;
    `seconds_between_reports`, for which it goes on training before it tells of its epochs, 0 to tell of each; and,
    where it confirms, `reads_test`, whether its last epoch reports the accuracy on the test split, and `student_path`,
    where its student is kept, if it is.

    An error in an epoch ends the trial, not the study: the last result then carries it under `failed`. Only a
    process that dies is Tune's to start again.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Take a trial in a new process; its first step begins it, so that all that can take long is a step."""
        use_one_thread()
        self._to_begin: dict[str, Any] | None = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial in the same process, which is what makes short trials cheap."""
        self._to_begin = new_config
        return True

    def _begin_if_new(self) -> None:
        settings, self._to_begin = self._to_begin, None
        if settings is not None:
            self._begin(settings)

    def _begin(self, config: dict[str, Any]) -> None:
        self._error: str | None = None
        self._between = config.get("seconds_between_reports", 0.0)
        self._saved_at = time.monotonic()
        self._student_path: str | None = config.get("student_path")
        try:
            self._run = self._start(config)
        except Exception as error:
            self._error = describe_error(error)

    def _start(self, settings: dict[str, Any]) -> DistillationRun:
        return begin_run(settings)

    def step(self) -> dict[str, Any]:
        """Train and evaluate, until a report is due.

        Returns:
            `epochs`, the measures of each that went well; the last one's number and objective, for Tune; the trial's
            `facts`; `finished`, whether it was its last, and with it its `calibration`; `failed` where it went wrong;
            and `notes` where there is something that a person should know.
        """
        self._begin_if_new()
        epochs: list[dict[str, float]] = []
        due = time.monotonic() + self._between
        while self._error is None:
            try:
                measures = self._run_epoch()
                keep_if_asked(self._run, self._student_path)
            except WorkerLostError:
                raise  # as if it were this process that is lost
            except Exception as error:
                self._error = describe_error(error)
                break
            epochs.append({"epoch": self._run.epoch, **measures})
            if self._run.finished or time.monotonic() >= due:
                return report(self._run, epochs, saved_at=self._saved_at)
        return failed_report(self._error, epochs)

    def _run_epoch(self) -> dict[str, float]:
        return self._run.run_epoch()

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Keep the trial's state; one that cannot be kept costs a resume time, and is no reason to fail."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                return super().save(checkpoint_dir or folder)
            except OSError as error:
                _notes.append(f"a checkpoint of {self.trial_name} could not be written ({error}); it goes on without")
                return NothingKept()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the trial's state."""
        self._saved_at = time.monotonic()
        save_checkpoint(self._run, Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: str) -> None:  # type: ignore[override]
        """Go on from a trial's state, in another process than the one that wrote it."""
        self._begin_if_new()
        load_checkpoint(self._run, Path(checkpoint))


def begin_run(settings: dict[str, Any], *, workers: Workers | None = None) -> DistillationRun:
    """The trial that Tune's config describes, from its newest whole checkpoint if it has any.

    Args:
        settings: see `DistillationTrainable`.
        workers: the processes that train it together, if it is not this one alone.
    """
    trial = TrialConfig(**settings["config"])
    path, device, outputs = _teacher_path(settings, trial), settings.get("device", "cpu"), None
    dataset = _dataset(trial, settings["data_root"], path)
    teacher = _teacher(path, trial, dataset) if path is not None else None
    if teacher is not None and not trial.method_entry.needs_live_teacher:
        outputs = _teacher_outputs(settings.get("teacher_outputs"), trial, dataset, teacher, device)
    reads_test = settings.get("reads_test", False)
    run = DistillationRun(
        trial, dataset, teacher, device=device, teacher_outputs=outputs, reads_test=reads_test, workers=workers
    )
    for place in settings.get("checkpoints", []):
        try:
            with place.as_directory() if isinstance(place, tune.Checkpoint) else nullcontext(place) as folder:
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
        return run.cost.facts
    except Exception as error:  # whatever a method or a net of somebody's own does: the trial itself is sound
        _notes.append(
            f"what {run.config.method} costs could not be counted, {describe_error(error)}; it goes unrecorded"
        )
        return {}


class PreparedTeacher(NamedTuple):
    """A study's teacher, ready for its trials.

    Args:
        path: its file.
        notes: what a person should know of one that was given.
    """

    path: str
    notes: list[str]


def prepare_teacher(
    config: dict[str, Any], data_root: str | None, folder: str, progress_file: str | None = None
) -> PreparedTeacher:
    """Train the study's teacher, or find it where an earlier study left it, or where one that was given is kept.

    Args:
        config: fields of a `TrialConfig` with that teacher.
        data_root: where the dataset lies.
        folder: where teachers are kept.
        progress_file: to be told there how a training goes, as JSON: `epoch`, `epochs`, `accuracy`.
    """
    use_one_thread()
    trial = TrialConfig(**config)
    kept = stored_path(Path(folder), trial.teacher_digest) if trial.teacher_digest else None
    dataset = _dataset(trial, data_root, kept)

    def tell(epoch: int, epochs: int, accuracy: float) -> None:
        if progress_file is not None:
            text = json.dumps({"epoch": epoch, "epochs": epochs, "accuracy": accuracy})
            partial = Path(f"{progress_file}.partial")
            partial.write_text(text, encoding="utf-8")
            partial.replace(progress_file)

    path = ensure_teacher(trial, dataset, Path(folder), progress=tell)
    notes = notes_on_given_teacher(path, trial, dataset) if trial.teacher_digest else []
    return PreparedTeacher(str(path), notes)


def dataset_digest(config: dict[str, Any], data_root: str | None, folder: str) -> str:
    """Read a study's dataset and return the digest of its content and split.

    Args:
        config: fields of a `TrialConfig` of the study.
        data_root: where the dataset lies.
        folder: where teachers are kept; one that was given has its tokeniser there.
    """
    use_one_thread()
    trial = TrialConfig(**config)
    kept = stored_path(Path(folder), trial.teacher_digest) if trial.teacher_digest else None
    return _dataset(trial, data_root, kept).digest


class FillReport(NamedTuple):
    """What a task of `fill_teacher_outputs` found and did.

    Args:
        missing: what was missing when it began, where it had to look for itself.
        filled: the shards that now have their file.
        forwards: samples that went through the teacher.
        seconds: what that took.
        notes: what a person should know.
        node: Ray's name of the node that it ran on.
    """

    missing: list[Shard]
    filled: list[Shard]
    forwards: int
    seconds: float
    notes: list[str]
    node: str


def fill_teacher_outputs(settings: dict[str, Any], shards: list[Shard] | None = None) -> FillReport:
    """Fill shards of the teacher's outputs, one after the other; it ends early where one cannot be stored.

    Args:
        settings: as the Tune config of a trial, and so are the outputs that it wants filled: those of the
            validation split and of all slots that its epochs use.
        shards: which; if not given, the first one that is missing.
    """
    use_one_thread()
    config = TrialConfig(**settings["config"])
    path = _teacher_path(settings, config)
    assert path is not None
    dataset = _dataset(config, settings["data_root"], path)
    teacher = _teacher(path, config, dataset)
    store = _store(settings["teacher_outputs"], config, dataset, teacher, settings["device"])
    missing = store.missing(num_slots(store.tables.num_views, config.epochs)) if shards is None else []
    filled, forwards, began = [], 0, time.perf_counter()
    for shard in missing[:1] if shards is None else shards:
        done = store.fill(shard)
        forwards += done.forwards
        if not done.stored:
            break
        filled.append(shard)
    seconds = time.perf_counter() - began
    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
    return FillReport(missing, filled, forwards, seconds, take_notes(), node)


def _dataset(config: TrialConfig, root: str | None, teacher_path: str | Path | None) -> Dataset:
    return _loaded(config.dataset, root, config.split_seed, find_tokeniser(config, teacher_path))


@cache
def _loaded(name: str, root: str | None, split_seed: int, tokeniser: Path | None) -> Dataset:
    return load_dataset(name, root, seed=split_seed, tokeniser=tokeniser)


def _teacher_path(settings: dict[str, Any], config: TrialConfig) -> str | None:
    path: str | None = settings.get("own_teachers", {}).get(config.method, settings["teacher_path"])
    return path


_teachers: dict[tuple[str, str], FrozenTeacher] = {}


def _teacher(path: str, config: TrialConfig, dataset: Dataset) -> FrozenTeacher:
    key = path, teacher_digest(config, dataset)
    if key not in _teachers:
        _teachers[key] = load_teacher(Path(path), config, dataset)
    return _teachers[key]


_stores: dict[tuple[str, ...], TeacherOutputsStore] = {}


def _teacher_outputs(
    settings: Any, config: TrialConfig, dataset: Dataset, teacher: FrozenTeacher, device: str
) -> StoredTeacherOutputs | None:
    if settings is None:
        return None
    return StoredTeacherOutputs(_store(settings, config, dataset, teacher, device))


def _store(
    settings: Any, config: TrialConfig, dataset: Dataset, teacher: FrozenTeacher, device: str
) -> TeacherOutputsStore:
    if isinstance(settings, ray.ObjectRef):  # what must not be seen in Tune's own files
        settings = ray.get(settings)
    location, rows_per_shard = settings["location"], settings.get("rows_per_shard", ROWS_PER_SHARD)
    key = (
        location,
        settings["dtype"],
        str(rows_per_shard),
        teacher.digest,
        dataset.digest,
        config.augmentation,
        device,
    )
    if key not in _stores:
        remote = is_uri(location)
        _stores[key] = TeacherOutputsStore(
            node_cache() / "teacher_outputs" if remote else Path(location),
            teacher,
            dataset,
            architecture=config.teacher,
            augmentation=config.augmentation,
            dtype=settings["dtype"],
            device=device,
            remote=RemoteFolder(location) if remote else None,
            rows_per_shard=rows_per_shard,
        )
    return _stores[key]


_notes: list[str] = []


def take_notes() -> list[str]:
    """What a person should know of this process's stores, and of what it could not count; each is told once."""
    notes = [*_notes, *(note for store in _stores.values() for note in store.take_notes())]
    _notes.clear()
    return notes


def describe_error(error: Exception) -> str:
    """What went wrong, and where."""
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (in {where.name}, {Path(where.filename).name}:{where.lineno})"
