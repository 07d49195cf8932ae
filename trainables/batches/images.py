"""Image batches for an epoch: samples, views, and the stored teacher outputs.

Several batches, as many as fit into a processor's cache, are gathered at once and then split. For small images, the
calls for gathering one batch would take longer than the copying.
"""

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

import torch
from torch import Tensor

from trainables.data.dataset import Dataset, Split
from trainables.data.views import (
    Normaliser,
    batch_order,
    num_slots,
    slot_of_epoch,
    view_table,
    views_of_slots,
)
from trainables.spec.batch_sizes import batch_sizes
from trainables.spec.trial import TrialConfig
from trainables.teacher_outputs.batch import TeacherBatch, TeacherOutputs

EVALUATION_BATCH: Final = 512
_GATHERED_BYTES: Final = 1 << 20


class Batch(NamedTuple):
    """Batch of samples from the train split.

    Args:
        indices: (B,) int64, rows in the train split.
        slot: augmented view index for each sample; see `trainables.data.views`.
        inputs: network inputs. Images are (B, C, H, W) float32, normalised, in these views. Sentences are (B, 2, L)
            int32, token ids and segments.
        labels: (B,) int64.
        teacher: stored teacher outputs; None if the teacher has to compute them.
        whole: indices and labels of the full batch if this batch is one worker's share; otherwise None.
    """

    indices: Tensor
    slot: int
    inputs: Tensor
    labels: Tensor
    teacher: TeacherBatch | None = None
    whole: tuple[Tensor, Tensor] | None = None


class BatchSource(Protocol):
    """Source of batches from a trial's splits.

    Attributes:
        slots: number of views per sample used in the trial.
    """

    slots: int

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""

    def of_epoch(self, epoch: int, teacher_outputs: TeacherOutputs | None) -> Iterator[Batch]:
        """Yield every train sample once; see `EpochBatches.of_epoch`."""

    def shares_of_epoch(
        self, epoch: int, teacher_outputs: TeacherOutputs | None, rows: Callable[[int], slice]
    ) -> Iterator[Batch]:
        """Yield one worker's share of each batch; see `EpochBatches.shares_of_epoch`."""

    def batch(self, indices: Tensor, slot: int, teacher_outputs: TeacherOutputs | None = None) -> Batch:
        """Return chosen train samples; see `EpochBatches.batch`."""

    def order(self, epoch: int) -> tuple[int, ...]:
        """Return a key of the epoch's batches: trials on the same data with equal keys see equal batches."""

    def evaluation(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a split without augmentation, in any order: rows of the split, (B,) int64, and inputs."""

    def example(self, count: int) -> Tensor:
        """Return inputs shaped like a batch of `count` samples; for text, with the average length."""

    def shape(self) -> tuple[int, ...]:
        """Return one sample's shape, without the batch dimension."""


class EpochBatches:
    """Image batches from a trial's train split.

    Batches have `config.batch_size` samples; the last batch has the remaining samples. A single remaining sample joins
    the batch before, see `trainables.spec.batch_sizes`.

    Args:
        config: trial config.
        dataset: trial dataset.
        device: device for the batches. Labels are kept there too, and so are images unless the views are resized crops.

    Raises:
        ValueError: the train split has fewer than two samples.
    """

    def __init__(self, config: TrialConfig, dataset: Dataset, device: torch.device) -> None:
        table = view_table(dataset.info, config.augmentation)
        self._config = config
        self._sizes = batch_sizes(len(dataset.train), config.batch_size)
        self.slots = num_slots(len(table), config.epochs)
        views = views_of_slots(len(dataset.train), len(table), self.slots, seed=config.split_seed)
        self._views = views.to(device)
        self._images = dataset.viewed(table, device)
        self._labels = dataset.train.labels.to(device)
        self._device = device
        self._shape = dataset.info.channels, dataset.train.image_size, dataset.train.image_size
        self.normalise = Normaliser(dataset.mean, dataset.std, device)

    def order(self, epoch: int) -> tuple[int, ...]:
        """Return a key of the epoch's batches: trials on the same images with equal keys see equal batches."""
        slot = slot_of_epoch(epoch, self.slots, data_seed=self._config.data_seed)
        return self._config.data_seed, epoch, slot, self._config.batch_size

    def __len__(self) -> int:
        return len(self._sizes)

    def of_epoch(self, epoch: int, teacher_outputs: TeacherOutputs | None) -> Iterator[Batch]:
        """Yield every sample once, in batches of the sizes given by `batch_sizes`.

        Args:
            epoch: counted from 0.
            teacher_outputs: stored teacher outputs to add to each batch, or None.
        """
        config = self._config
        slot = slot_of_epoch(epoch, self.slots, data_seed=config.data_seed)
        order = batch_order(len(self._labels), data_seed=config.data_seed, epoch=epoch).to(self._device)
        at_once = self._batches_at_once(teacher_outputs)
        groups = [self._sizes[first : first + at_once] for first in range(0, len(self._sizes), at_once)]
        for indices, sizes in zip(order.split([sum(group) for group in groups]), groups, strict=True):
            gathered = self.batch(indices, slot, teacher_outputs)
            columns = [each.split(sizes) for each in (indices, gathered.inputs, gathered.labels)]
            teacher: list[TeacherBatch | None] = [None] * len(sizes)
            if gathered.teacher is not None:
                parts = (each.split(sizes) for each in (gathered.teacher.feature, gathered.teacher.logits))
                teacher = [TeacherBatch(*each) for each in zip(*parts, strict=True)]
            for rows, inputs, labels, outputs in zip(*columns, teacher, strict=True):
                yield Batch(rows, slot, inputs, labels, outputs)

    def shares_of_epoch(
        self, epoch: int, teacher_outputs: TeacherOutputs | None, rows: Callable[[int], slice]
    ) -> Iterator[Batch]:
        """Yield one worker's share of each batch in the epoch.

        Args:
            epoch: counted from 0.
            teacher_outputs: stored teacher outputs to add to each share, or None.
            rows: maps a batch's sample count to the slice of this worker's share.
        """
        config = self._config
        slot = slot_of_epoch(epoch, self.slots, data_seed=config.data_seed)
        order = batch_order(len(self._labels), data_seed=config.data_seed, epoch=epoch).to(self._device)
        for indices in order.split(self._sizes):
            own = self.batch(indices[rows(len(indices))], slot, teacher_outputs)
            yield own._replace(whole=(indices, self._labels[indices]))

    def batch(self, indices: Tensor, slot: int, teacher_outputs: TeacherOutputs | None = None) -> Batch:
        """Return chosen samples in the views of a slot, with stored teacher outputs if given.

        Args:
            indices: (B,) int64, rows in the train split.
            slot: augmented view index.
            teacher_outputs: stored teacher outputs, or None.
        """
        images = self.normalise(self._images.batch(indices, self._views[slot, indices].long()))
        teacher = teacher_outputs.train_batch(indices, slot, images) if teacher_outputs is not None else None
        return Batch(indices, slot, images, self._labels[indices], teacher)

    def evaluation(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """Yield a split's rows (B,) int64 and normalised images, without augmentation and in the split's order."""
        rows = torch.arange(len(split), device=self._device).split(EVALUATION_BATCH)
        for indices, images in zip(rows, split.images.split(EVALUATION_BATCH), strict=True):
            yield indices, self.normalise(images.to(self._device))

    def example(self, count: int) -> Tensor:
        """Return images (count, C, H, W) of zeros."""
        return torch.zeros(count, *self.shape(), device=self._device)

    def shape(self) -> tuple[int, ...]:
        """Return (C, H, W)."""
        return self._shape

    def _batches_at_once(self, teacher_outputs: TeacherOutputs | None) -> int:
        numbers = self._images.numbers_per_image
        if teacher_outputs is not None:
            numbers += teacher_outputs.numbers_per_sample
        return max(1, _GATHERED_BYTES // (4 * numbers * self._config.batch_size))
