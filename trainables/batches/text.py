"""Text batches for an epoch: samples of similar length, with the stored teacher outputs."""

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
    """Batches from a text dataset's splits; each sample has one view.

    The batch sizes come from `trainables.spec.batch_sizes`: a single remaining sample joins another batch.

    Args:
        config: trial config.
        dataset: trial dataset.
        device: device for the batches; tokens and labels are kept there too.

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
        """Return a key of the epoch's batches: trials on the same data with equal keys see equal batches."""
        return self._config.data_seed, epoch, self._config.batch_size

    def __len__(self) -> int:
        return self._count

    def of_epoch(self, epoch: int, teacher_outputs: TeacherOutputs | None) -> Iterator[Batch]:
        """Yield every train sample once, in batches of similar length.

        Args:
            epoch: counted from 0.
            teacher_outputs: stored teacher outputs to add to each batch, or None.
        """
        for indices, length in self._indices_of_epoch(epoch):
            yield self._gathered(indices, 0, teacher_outputs, length)

    def shares_of_epoch(
        self, epoch: int, teacher_outputs: TeacherOutputs | None, rows: Callable[[int], slice]
    ) -> Iterator[Batch]:
        """Yield one worker's share of each batch in the epoch, padded to the full batch's length.

        Args:
            epoch: counted from 0.
            teacher_outputs: stored teacher outputs to add to each share, or None.
            rows: maps a batch's sample count to the slice of this worker's share.
        """
        for indices, length in self._indices_of_epoch(epoch):
            own = self._gathered(indices[rows(len(indices))], 0, teacher_outputs, length)
            yield own._replace(whole=(indices, self._train.labels[indices]))

    def _indices_of_epoch(self, epoch: int) -> Iterator[tuple[Tensor, int]]:
        config = self._config
        for indices in length_bucketed_batches(
            self._lengths, batch_size=config.batch_size, data_seed=config.data_seed, epoch=epoch
        ):
            # Computed on the CPU, without waiting for the device.
            yield indices.to(self._device), padded_length(int(self._lengths[indices].max()))

    def batch(self, indices: Tensor, slot: int, teacher_outputs: TeacherOutputs | None = None) -> Batch:
        """Return chosen samples, with stored teacher outputs if given.

        Args:
            indices: (B,) int64, rows in the train split.
            slot: 0, the only slot.
            teacher_outputs: stored teacher outputs, or None.
        """
        return self._gathered(indices, slot, teacher_outputs, None)

    def _gathered(
        self, indices: Tensor, slot: int, teacher_outputs: TeacherOutputs | None, length: int | None
    ) -> Batch:
        inputs = self._train.batch(indices, length=length)
        teacher = teacher_outputs.train_batch(indices, slot, inputs) if teacher_outputs is not None else None
        return Batch(indices, slot, inputs, self._train.labels[indices], teacher)

    def evaluation(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a split's rows (B,) int64 and sentences (B, 2, L) int32, from the shortest samples to the longest."""
        assert isinstance(split, TextSplit)
        placed = on_device(split, self._device)
        for rows in batches_sorted_by_length(split.lengths, batch_size=EVALUATION_BATCH):
            rows = rows.to(self._device)
            yield rows, placed.batch(rows)

    def example(self, count: int) -> Tensor:
        """Return sentences (count, 2, L) of one repeated token, with the average length of the train split."""
        inputs = torch.ones(count, *self.shape(), dtype=torch.int32, device=self._device)
        inputs[:, 1] = 0
        return inputs

    def shape(self) -> tuple[int, ...]:
        """Return (2, L), with L the padded average length of the train split."""
        return 2, padded_length(round(self._lengths.double().mean().item()))
