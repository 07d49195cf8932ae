"""A teacher in training: epoch by epoch, and from its last checkpoint on if it was stopped."""

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

# What a teacher has not, or what is said of it once and not of every epoch.
_LEFT_OUT: Final = ("cost/teacher_forwards", "cost/adapter_parameters", "cost/trainable_parameters")


class TeacherTraining:
    """One teacher in training, gone on with from where it was stopped.

    A training that was killed and gone on with gives, on one machine, the same bits as one that never was.

    Args:
        config: of `trainables.spec.teacher_trial.training_config`.
        dataset: its data.
        folder: holds its checkpoint.
        device: where it runs.
        seconds_between_checkpoints: at least; the last epoch's is always kept.
        method: what it learns by, if not by cross-entropy.

    Raises:
        CheckpointError: the checkpoint there is damaged or belongs to another training.
        ValueError: architecture and data do not go together.
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
        """The network."""
        return self._run.student

    @property
    def finished_epochs(self) -> int:
        """How many epochs are done."""
        return self._run.epoch

    @property
    def seconds(self) -> float:
        """What its epochs took, those before a stop too."""
        return sum(measures["cost/seconds"] for measures in self.history)

    def epochs(self) -> Iterator[dict[str, float]]:
        """Train what is left, and give each epoch's measures once its checkpoint is on disk.

        Raises:
            NonFiniteLossError: naming the epoch.
        """
        while not self._run.finished:
            measures = run_epoch(self._run)
            measures["learning_rate"] = self._run.student_trainer.rate
            self.history.append({_own_name(name): value for name, value in measures.items() if name not in _LEFT_OUT})
            self._save()
            yield self.history[-1]

    def test_accuracy(self) -> float:
        """Reads the test split, once the training is over."""
        assert self._run.finished
        return self._run.evaluate_test()["test/accuracy"]

    def forget(self) -> None:
        """Remove the checkpoint, once the result is stored."""
        shutil.rmtree(self._folder, ignore_errors=True)

    def _save(self) -> None:
        if self._run.finished or time.monotonic() - self._saved_at >= self._seconds_between:
            save_checkpoint(self._run, self._folder, notes={"history": self.history})
            self._saved_at = time.monotonic()


def _own_name(measure: str) -> str:
    """`val/sharpness_student` is a teacher's `val/sharpness`."""
    return measure.removesuffix("_student")
