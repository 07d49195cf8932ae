"""The batches of an epoch of text: samples of similar length, and what the stored teacher says of them."""

from collections.abc import Callable, Iterator

import torch
from torch import Tensor

from trainables.batches.images import Batch
from trainables.data.dataset import Dataset, Split
from trainables.data.text.dataset import EVALUATION_BATCH, TextDataset, TextSplit, on_device
from trainables.data.text.lengths import batches_sorted_by_length, length_bucketed_batches
from trainables.data.text.tokens import padded_length
from trainables.spec.batch_sizes import batch_sizes
from trainables.spec.trial import TrialConfig
from trainables.teacher_outputs.batch import TeacherOutputs


class TextBatches:
    """The splits of a trial on text, batch by batch; a sample has one view.

    Batches have the sizes of `trainables.spec.batch_sizes`: a single sample that is left over joins another batch.

    Args:
        config: the trial.
        dataset: its dataset.
        device: where the batches are wanted; tokens and labels stay there.

    Raises:
        ValueError: the train split has fewer than two samples.
    """

    slots = 1

    def __init__(self, config: TrialConfig, dataset: Dataset, device: torch.device) -> None:
        assert isinstance(dataset, TextDataset)
        self._config = config
        self._device = device
        self._train = on_device(dataset.train, device)
        self._lengths = dataset.train.lengths
        self._count = len(batch_sizes(len(self._lengths), config.batch_size))

    def order(self, epoch: int) -> tuple[int, ...]:
        """What two trials on the same data have in common where they go through them alike in an epoch."""
        return self._config.data_seed, epoch, self._config.batch_size

    def __len__(self) -> int:
        return self._count

    def of_epoch(self, epoch: int, teacher_outputs: TeacherOutputs | None) -> Iterator[Batch]:
        """Every sample of the train split once, in batches of similar length.

        Args:
            epoch: counted from 0.
            teacher_outputs: stored ones, which each batch is to bring along; or None.
        """
        for indices, length in self._indices_of_epoch(epoch):
            yield self._gathered(indices, 0, teacher_outputs, length)

    def shares_of_epoch(
        self, epoch: int, teacher_outputs: TeacherOutputs | None, rows: Callable[[int], slice]
    ) -> Iterator[Batch]:
        """Of each of these batches the part that one worker passes through the networks, as long as the whole.

        Args:
            epoch: counted from 0.
            teacher_outputs: stored ones, which each part is to bring along; or None.
            rows: which of so many samples the part is.
        """
        for indices, length in self._indices_of_epoch(epoch):
            own = self._gathered(indices[rows(len(indices))], 0, teacher_outputs, length)
            yield own._replace(whole=(indices, self._train.labels[indices]))

    def _indices_of_epoch(self, epoch: int) -> Iterator[tuple[Tensor, int]]:
        config = self._config
        for indices in length_bucketed_batches(
            self._lengths, batch_size=config.batch_size, data_seed=config.data_seed, epoch=epoch
        ):
            # The length is known without asking the device.
            yield indices.to(self._device), padded_length(int(self._lengths[indices].max()))

    def batch(self, indices: Tensor, slot: int, teacher_outputs: TeacherOutputs | None = None) -> Batch:
        """Some samples, with the stored outputs if there are any.

        Args:
            indices: (B,) int64.
            slot: 0, the only one.
            teacher_outputs: stored ones, or None.
        """
        return self._gathered(indices, slot, teacher_outputs, None)

    def _gathered(
        self, indices: Tensor, slot: int, teacher_outputs: TeacherOutputs | None, length: int | None
    ) -> Batch:
        inputs = self._train.batch(indices, length=length)
        teacher = teacher_outputs.train_batch(indices, slot, inputs) if teacher_outputs is not None else None
        return Batch(indices, slot, inputs, self._train.labels[indices], teacher)

    def evaluation(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """A split from its shortest samples to its longest: rows, and sentences (B, 2, L) int32."""
        assert isinstance(split, TextSplit)
        placed = on_device(split, self._device)
        for rows in batches_sorted_by_length(split.lengths, batch_size=EVALUATION_BATCH):
            rows = rows.to(self._device)
            yield rows, placed.batch(rows)

    def example(self, count: int) -> Tensor:
        """Sentences (count, 2, L) of one token over and over, as long as the train split's are on average."""
        inputs = torch.ones(count, *self.shape(), dtype=torch.int32, device=self._device)
        inputs[:, 1] = 0
        return inputs

    def shape(self) -> tuple[int, ...]:
        """(2, L), with L of an average sample, padded."""
        return 2, padded_length(round(self._lengths.double().mean().item()))
