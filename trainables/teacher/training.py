"""Training of a teacher, epoch by epoch, resumed from the last checkpoint."""

import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import torch

from trainables.costs.epoch import run_epoch
from trainables.data.dataset import Dataset
from trainables.methods.method import Method
from trainables.models import DistillationModel
from trainables.run.checkpoint import CHECKPOINT_FILE, load_checkpoint, save_checkpoint
from trainables.run.run import DistillationRun
from trainables.spec.trial import TrialConfig

# Measures missing for a teacher, or recorded once instead of every epoch.
_LEFT_OUT: Final = ("cost/teacher_forwards", "cost/adapter_parameters", "cost/trainable_parameters")


class TeacherTraining:
    """Training of one teacher. Resumes after an interruption.

    On one machine, a killed and resumed training gives the same bits as an uninterrupted one.

    Args:
        config: trial config from `trainables.spec.teacher_trial`.
        dataset: the config's dataset.
        folder: training checkpoint folder.
        device: device to train on.
        seconds_between_checkpoints: minimum time between checkpoints. The last epoch always has one.
        method: training method. The default is the method of `config`, which is cross-entropy.

    Raises:
        CheckpointError: the checkpoint in `folder` is damaged or belongs to another training.
        ValueError: the architecture does not fit the data.
    """

    def __init__(
        self,
        config: TrialConfig,
        dataset: Dataset,
        folder: Path,
        *,
        device: torch.device | str = "cpu",
        seconds_between_checkpoints: float = 0.0,
        method: Method | None = None,
    ) -> None:
        self._run = DistillationRun(config, dataset, None, device=device, method=method)
        self._folder = folder
        self._seconds_between = seconds_between_checkpoints
        self._saved_at = time.monotonic()
        self.history: list[dict[str, float]] = []
        if (folder / CHECKPOINT_FILE).exists():
            self.history = load_checkpoint(self._run, folder)["history"]

    @property
    def model(self) -> DistillationModel:
        """Model in training."""
        return self._run.student

    @property
    def finished_epochs(self) -> int:
        """Number of finished epochs."""
        return self._run.epoch

    @property
    def seconds(self) -> float:
        """Duration of all finished epochs in seconds, including epochs before an interruption."""
        return sum(measures["cost/seconds"] for measures in self.history)

    def epochs(self) -> Iterator[dict[str, float]]:
        """Train the remaining epochs, and yield each epoch's measures.

        If a checkpoint is due after an epoch, it is on disk before the measures are yielded.

        Raises:
            NonFiniteLossError: the loss is not finite. The message names the epoch.
        """
        while not self._run.finished:
            measures = run_epoch(self._run)
            measures["learning_rate"] = self._run.student_trainer.rate
            self.history.append({_own_name(name): value for name, value in measures.items() if name not in _LEFT_OUT})
            self._save()
            yield self.history[-1]

    def test_accuracy(self) -> float:
        """Compute the accuracy on the test split. The training must be finished."""
        assert self._run.finished
        return self._run.evaluate_test()["test/accuracy"]

    def forget(self) -> None:
        """Remove the checkpoint. Call this when the result is stored."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _save(self) -> None:
        if self._run.finished or time.monotonic() - self._saved_at >= self._seconds_between:
            save_checkpoint(self._run, self._folder, notes={"history": self.history})
            self._saved_at = time.monotonic()


def _own_name(measure: str) -> str:
    """Return a measure's name for a teacher: `val/sharpness_student` becomes `val/sharpness`."""
    return measure.removesuffix("_student")
