"""The trial as Ray Tune sees it: glue only; everything it calls runs, and is tested, without Ray."""

import math
import time
import traceback
from functools import cache
from pathlib import Path
from typing import Any, Final

from ray import tune

from trainables.checkpoint import CheckpointError, load_checkpoint, save_checkpoint
from trainables.data import load_dataset
from trainables.data.dataset import Dataset
from trainables.measures import ACCURACY
from trainables.teacher import FrozenTeacher, ensure_teacher, load_teacher, teacher_digest
from trainables.teacher_outputs_store import StoredTeacherOutputs, TeacherOutputsStore
from trainables.training import DistillationRun, use_one_thread
from trainables.trial import TrialConfig

# A checkpoint costs a few milliseconds here and in the driver: at most one a second keeps that under a percent,
# and an epoch of a real network takes longer, so that it loses at most one.
SECONDS_BETWEEN_CHECKPOINTS: Final = 1.0


class DistillationTrainable(tune.Trainable):
    """One trial; a step is an epoch.

    Its Tune config holds `config` (the fields of `TrialConfig`), `data_root`, `teacher_path`, `teacher_outputs`
    (`folder` and `dtype` of the stored ones, or None for a live teacher), and `checkpoints`: folders to go on from,
    newest first; one that is damaged is passed over.

    An error in an epoch ends the trial, not the study: the last result then carries it under `failed`. Only a
    process that dies is Tune's to start again.
    """

    def setup(self, config: dict[str, Any]) -> None:
        """Begin a trial in a new process."""
        use_one_thread()
        self._begin(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Begin another trial in the same process, which is what makes short trials cheap."""
        self._begin(new_config)
        return True

    def _begin(self, config: dict[str, Any]) -> None:
        self._error: str | None = None
        self._saved_at = time.monotonic()
        try:
            trial = TrialConfig(**config["config"])
            dataset = _dataset(trial.dataset, config["data_root"], trial.split_seed)
            teacher = _teacher(config["teacher_path"], trial, dataset)
            device = config.get("device", "cpu")
            outputs = _teacher_outputs(config.get("teacher_outputs"), trial, dataset, teacher, device)
            self._run = DistillationRun(trial, dataset, teacher, device=device, teacher_outputs=outputs)
            self._resume(config.get("checkpoints", []))
        except Exception as error:
            self._error = _describe(error)

    def _resume(self, folders: list[str]) -> None:
        for folder in folders:
            try:
                load_checkpoint(self._run, Path(folder))
                return
            except CheckpointError:
                continue

    def step(self) -> dict[str, Any]:
        """Train and evaluate one epoch.

        Returns:
            The epoch's measures, `epoch`, `finished` (whether it was the last), and `failed` where it went wrong.
        """
        measures: dict[str, float] = {}
        if self._error is None:
            try:
                measures = self._run.run_epoch()
            except Exception as error:
                self._error = _describe(error)
        if self._error is not None:
            return {ACCURACY: math.nan, "epoch": 0, "finished": False, "failed": self._error, "done": True}
        finished = self._run.finished
        due = time.monotonic() - self._saved_at >= SECONDS_BETWEEN_CHECKPOINTS
        return {
            **measures,
            "epoch": self._run.epoch,
            "finished": finished,
            "done": finished,
            "should_checkpoint": due and not finished,
        }

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the trial's state."""
        self._saved_at = time.monotonic()
        save_checkpoint(self._run, Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: str) -> None:  # type: ignore[override]
        """Go on from a trial's state, in another process than the one that wrote it."""
        load_checkpoint(self._run, Path(checkpoint))


def prepare_teacher(config: dict[str, Any], data_root: str | None, folder: str) -> str:
    """Train the study's teacher, or find it where an earlier study left it.

    Args:
        config: fields of a `TrialConfig` with that teacher.
        data_root: where the dataset lies.
        folder: where teachers are kept.

    Returns:
        The teacher's file.
    """
    use_one_thread()
    trial = TrialConfig(**config)
    return str(ensure_teacher(trial, _dataset(trial.dataset, data_root, trial.split_seed), Path(folder)))


@cache
def _dataset(name: str, root: str | None, split_seed: int) -> Dataset:
    return load_dataset(name, root, seed=split_seed)


_teachers: dict[tuple[str, str], FrozenTeacher] = {}


def _teacher(path: str, config: TrialConfig, dataset: Dataset) -> FrozenTeacher:
    key = path, teacher_digest(config, dataset)
    if key not in _teachers:
        _teachers[key] = load_teacher(Path(path), config, dataset)
    return _teachers[key]


_stores: dict[tuple[str, ...], TeacherOutputsStore] = {}


def _teacher_outputs(
    settings: dict[str, Any] | None, config: TrialConfig, dataset: Dataset, teacher: FrozenTeacher, device: str
) -> StoredTeacherOutputs | None:
    if settings is None:
        return None
    key = (settings["folder"], settings["dtype"], teacher.digest, dataset.digest, config.augmentation, device)
    if key not in _stores:
        _stores[key] = TeacherOutputsStore(
            Path(settings["folder"]),
            teacher,
            dataset,
            architecture=config.teacher,
            augmentation=config.augmentation,
            dtype=settings["dtype"],
            device=device,
        )
    return StoredTeacherOutputs(_stores[key])


def _describe(error: Exception) -> str:
    where = traceback.extract_tb(error.__traceback__)[-1]
    return f"{type(error).__name__}: {error} (in {where.name}, {Path(where.filename).name}:{where.lineno})"
