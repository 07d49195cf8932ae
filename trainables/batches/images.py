"""The batches of an epoch of images: which samples, in which views, and what the stored teacher says of them.

Several batches are gathered at once and handed out as slices, as many as stay within a processor's cache: for small
images the calls that gather a batch would take longer than the gathering.
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
    """Some samples of the train split.

    Args:
        indices: (B,) int64, their rows in the train split.
        slot: which of each sample's views is shown (see `trainables.data.views`).
        inputs: as networks take them: images (B, C, H, W) float32, normalised, in these views; or sentences (B, 2, L)
            int32, token ids and segments.
        labels: (B,) int64.
        teacher: what the stored teacher says of them; None if it is to be asked.
        whole: indices and labels of the batch that these samples are one worker's share of; None if they are all of it.
    """

    indices: Tensor
    slot: int
    inputs: Tensor
    labels: Tensor
    teacher: TeacherBatch | None = None
    whole: tuple[Tensor, Tensor] | None = None


class BatchSource(Protocol):
    """The splits of a trial's dataset, batch by batch.

    Attributes:
        slots: how many of each sample's views the trial shows.
    """

    slots: int

    def __len__(self) -> int:
        """Batches in an epoch."""

    def of_epoch(self, epoch: int, teacher_outputs: TeacherOutputs | None) -> Iterator[Batch]:
        """Every sample of the train split once; see `EpochBatches.of_epoch`."""

    def shares_of_epoch(
        self, epoch: int, teacher_outputs: TeacherOutputs | None, rows: Callable[[int], slice]
    ) -> Iterator[Batch]:
        """One worker's share of each of them; see `EpochBatches.shares_of_epoch`."""

    def batch(self, indices: Tensor, slot: int, teacher_outputs: TeacherOutputs | None = None) -> Batch:
        """Some samples of the train split; see `EpochBatches.batch`."""

    def order(self, epoch: int) -> tuple[int, ...]:
        """What two trials on the same data have in common where they go through them alike in an epoch."""

    def evaluation(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """A split as it is, in any order: rows of the split, (B,) int64, and inputs."""

    def example(self, count: int) -> Tensor:
        """Inputs of the shape that a batch of `count` samples has, or has on average."""

    def shape(self) -> tuple[int, ...]:
        """The shape of a sample, without the batch."""


class EpochBatches:
    """The train split of a trial, batch by batch.

    Batches have `config.batch_size` samples, the last one what is left over. A single sample that is left over joins
    the batch before it, see `trainables.spec.batch_sizes`.

    Args:
        config: the trial.
        dataset: its dataset.
        device: where the batches are wanted; images and labels stay there.

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
        """What two trials on the same images have in common where they go through them alike in an epoch."""
        slot = slot_of_epoch(epoch, self.slots, data_seed=self._config.data_seed)
        return self._config.data_seed, epoch, slot, self._config.batch_size

    def __len__(self) -> int:
        return len(self._sizes)

    def of_epoch(self, epoch: int, teacher_outputs: TeacherOutputs | None) -> Iterator[Batch]:
        """Every sample once, in batches of the sizes that `batch_sizes` gives.

        Args:
            epoch: counted from 0.
            teacher_outputs: stored ones, which each batch is to bring along; or None.
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
        """The same batches, of each the part that one worker passes through the networks.

        Args:
            epoch: counted from 0.
            teacher_outputs: stored ones, which each part is to bring along; or None.
            rows: which of so many samples the part is.
        """
        config = self._config
        slot = slot_of_epoch(epoch, self.slots, data_seed=config.data_seed)
        order = batch_order(len(self._labels), data_seed=config.data_seed, epoch=epoch).to(self._device)
        for indices in order.split(self._sizes):
            own = self.batch(indices[rows(len(indices))], slot, teacher_outputs)
            yield own._replace(whole=(indices, self._labels[indices]))

    def batch(self, indices: Tensor, slot: int, teacher_outputs: TeacherOutputs | None = None) -> Batch:
        """Some samples in the views of a slot, with the stored outputs if there are any.

        Args:
            indices: (B,) int64.
            slot: of views.
            teacher_outputs: stored ones, or None.
        """
        images = self.normalise(self._images.batch(indices, self._views[slot, indices].long()))
        teacher = teacher_outputs.train_batch(indices, slot, images) if teacher_outputs is not None else None
        return Batch(indices, slot, images, self._labels[indices], teacher)

    def evaluation(self, split: Split) -> Iterator[tuple[Tensor, Tensor]]:
        """A split's images, normalised and as they are, in its own order: their rows, and they."""
        rows = torch.arange(len(split), device=self._device).split(EVALUATION_BATCH)
        for indices, images in zip(rows, split.images.split(EVALUATION_BATCH), strict=True):
            yield indices, self.normalise(images.to(self._device))

    def example(self, count: int) -> Tensor:
        """Black images (count, C, H, W)."""
        return torch.zeros(count, *self.shape(), device=self._device)

    def shape(self) -> tuple[int, ...]:
        """(C, H, W)."""
        return self._shape

    def _batches_at_once(self, teacher_outputs: TeacherOutputs | None) -> int:
        numbers = self._images.numbers_per_image
        if teacher_outputs is not None:
            numbers += teacher_outputs.numbers_per_sample
        return max(1, _GATHERED_BYTES // (4 * numbers * self._config.batch_size))
