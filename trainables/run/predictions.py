"""Predictions of a trial's networks for a whole split, in split order; workers share the computation."""

from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import Final

import torch
from torch import Tensor

from trainables.batches.images import BatchSource, EpochBatches
from trainables.data.dataset import Dataset, Split
from trainables.models import DistillationModel
from trainables.models.folding import FoldedCopy
from trainables.run.workers import Workers
from trainables.teacher_outputs.batch import TeacherBatch, TeacherOutputs

# Pixels per channel in the validation split. Below this, finding the foldable layers takes longer than it saves.
_FOLDED_FROM: Final = 1_000_000


class SplitPredictor:
    """Predictions of one trial's networks.

    Args:
        student: the student; left in eval mode.
        dataset: trial dataset.
        batches: converts samples to network inputs.
        workers: processes training the trial together; None if this process trains alone.
    """

    def __init__(
        self, student: DistillationModel, dataset: Dataset, batches: BatchSource, workers: Workers | None
    ) -> None:
        self._student, self._dataset, self._batches, self._workers = student, dataset, batches, workers
        self._teacher: TeacherBatch | None = None

    def of(self, net: Callable[[Tensor], Tensor], split: Split) -> Tensor:
        """Return a network's outputs for all samples (N, ...) in a split."""
        found = [(rows, self._gathered(net(inputs[own]), rows)) for rows, inputs, own in self._shares(split)]
        return _in_order(*zip(*found, strict=True))

    def of_student(self, split: Split) -> Tensor:
        """Return the student logits (N, C) for a split."""
        self._student.eval()
        return self.of(self.folded_student.current() if self.folded_student is not None else self._student, split)

    def of_frozen_teacher(self, outputs: TeacherOutputs) -> TeacherBatch:
        """Return the frozen teacher's outputs on the validation split, computed once per trial as they never change."""
        if self._teacher is None:
            found = [
                (rows, outputs.validation(rows[own], inputs[own]))
                for rows, inputs, own in self._shares(self._dataset.validation)
            ]
            rows = [rows for rows, _ in found]
            self._teacher = TeacherBatch(
                _in_order(rows, [self._gathered(batch.feature, of) for of, batch in found]),
                _in_order(rows, [self._gathered(batch.logits, of) for of, batch in found]),
            )
        return self._teacher

    @cached_property
    def folded_student(self) -> FoldedCopy | None:
        """Student with each BatchNorm folded into the layer before it, or None where folding saves no time."""
        split = self._dataset.validation
        if not isinstance(self._batches, EpochBatches) or len(split) * split.image_size**2 < _FOLDED_FROM:
            return None
        device = next(self._student.parameters()).device
        return FoldedCopy(self._student, self._batches.normalise(split.images[:2].to(device)))

    def _shares(self, split: Split) -> Iterator[tuple[Tensor, Tensor, slice]]:
        """Yield a split's batches, each with this worker's slice of rows."""
        for rows, inputs in self._batches.evaluation(split):
            yield rows, inputs, slice(0, len(rows)) if self._workers is None else self._workers.rows(len(rows))

    def _gathered(self, predictions: Tensor, rows: Tensor) -> Tensor:
        return predictions if self._workers is None else self._workers.gather(predictions, len(rows))


def _in_order(rows: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    joined = torch.cat(list(values))
    ordered = torch.empty_like(joined)
    ordered[torch.cat(list(rows))] = joined
    return ordered
