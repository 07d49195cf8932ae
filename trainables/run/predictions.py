"""What a trial's networks say of a whole split, in the split's own order; each worker asks them of its share."""

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

# Pixels of the validation split, a channel: below, finding out what can be folded takes longer than it saves.
_FOLDED_FROM: Final = 1_000_000


class SplitAnswers:
    """Asks the networks of one trial.

    Args:
        student: left in evaluation mode.
        dataset: the trial's.
        batches: as networks take its samples.
        workers: who train the trial together; this process alone if None.
    """

    def __init__(
        self, student: DistillationModel, dataset: Dataset, batches: BatchSource, workers: Workers | None
    ) -> None:
        self._student, self._dataset, self._batches, self._workers = student, dataset, batches, workers
        self._teacher: TeacherBatch | None = None

    def of(self, net: Callable[[Tensor], Tensor], split: Split) -> Tensor:
        """What a network gives of the samples (N, ...) of a split."""
        found = [(rows, self._gathered(net(inputs[own]), rows)) for rows, inputs, own in self._shares(split)]
        return _in_order(*zip(*found, strict=True))

    def of_student(self, split: Split) -> Tensor:
        """The student's logits (N, C)."""
        self._student.eval()
        return self.of(self.folded_student.current() if self.folded_student is not None else self._student, split)

    def of_frozen_teacher(self, outputs: TeacherOutputs) -> TeacherBatch:
        """The frozen teacher's of the validation split: they never change, so they are computed once a trial."""
        if self._teacher is None:
            found = [
                (rows, outputs.validation(rows[own], inputs[own]))
                for rows, inputs, own in self._shares(self._dataset.validation)
            ]
            rows = [rows for rows, _ in found]
            self._teacher = TeacherBatch(
                _in_order(rows, [self._gathered(said.feature, of) for of, said in found]),
                _in_order(rows, [self._gathered(said.logits, of) for of, said in found]),
            )
        return self._teacher

    @cached_property
    def folded_student(self) -> FoldedCopy | None:
        """The student with each BatchNorm folded into what is before it, where that saves time."""
        split = self._dataset.validation
        if not isinstance(self._batches, EpochBatches) or len(split) * split.image_size**2 < _FOLDED_FROM:
            return None
        device = next(self._student.parameters()).device
        return FoldedCopy(self._student, self._batches.normalise(split.images[:2].to(device)))

    def _shares(self, split: Split) -> Iterator[tuple[Tensor, Tensor, slice]]:
        """A split's batches, and this worker's rows of each."""
        for rows, inputs in self._batches.evaluation(split):
            yield rows, inputs, slice(0, len(rows)) if self._workers is None else self._workers.rows(len(rows))

    def _gathered(self, answers: Tensor, rows: Tensor) -> Tensor:
        return answers if self._workers is None else self._workers.gather(answers, len(rows))


def _in_order(rows: Sequence[Tensor], values: Sequence[Tensor]) -> Tensor:
    joined = torch.cat(list(values))
    ordered = torch.empty_like(joined)
    ordered[torch.cat(list(rows))] = joined
    return ordered
