"""Where a trial gets its frozen teacher's outputs from, and the simplest source: the teacher, batch by batch."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, NamedTuple, Protocol

import torch
from torch import Tensor

if TYPE_CHECKING:
    from trainables.teacher.frozen import FrozenTeacher


class TeacherBatch(NamedTuple):
    """What the frozen teacher says of some images, without gradient.

    Args:
        feature: (B, D), its penultimate feature.
        logits: (B, C), its head applied to that feature.
        maps: after its stem and each stage, (B, C_i, H_i, W_i); None where they are not asked for. They are never
            stored: those of one image are hundreds of times its feature.
    """

    feature: Tensor
    logits: Tensor
    maps: tuple[Tensor, ...] | None = None

    @classmethod
    def joined(cls, batches: Sequence["TeacherBatch"]) -> "TeacherBatch":
        """Feature and logits of several batches as one."""
        return cls(torch.cat([each.feature for each in batches]), torch.cat([each.logits for each in batches]))


class TeacherOutputs(Protocol):
    """A source of the frozen teacher's outputs.

    Attributes:
        forwards: samples that went through the teacher itself so far, in all.
        stored: whether they are looked up; if not, they are computed from the images, in the student's arithmetic.
        numbers_per_sample: of a feature and its logits together.
    """

    forwards: int
    stored: bool
    numbers_per_sample: int

    @property
    def source(self) -> object:
        """What answers; two that have the same one give the same answers."""

    def train_batch(self, indices: Tensor, slot: int, images: Tensor) -> TeacherBatch:
        """The outputs for a batch of the train split.

        Args:
            indices: (B,) int64, rows of the train split.
            slot: which of each sample's views is shown (see `trainables.data.views`).
            images: (B, C, H, W) float32, normalised, these samples in these views.
        """

    def validation(self, indices: Tensor, images: Tensor) -> TeacherBatch:
        """The outputs for all or some of the validation split.

        Args:
            indices: (B,) int64, rows of the validation split.
            images: (B, C, H, W) float32, normalised.
        """


class LiveTeacherOutputs:
    """The teacher itself, asked anew for every batch.

    Args:
        teacher: the frozen teacher.
        maps: whether batches of the train split are to have its maps.
    """

    stored = False

    def __init__(self, teacher: "FrozenTeacher", *, maps: bool = False) -> None:
        self._teacher = self.source = teacher
        self.gives_maps = maps
        self.numbers_per_sample = teacher.head.in_features + teacher.head.out_features
        self.forwards = 0

    def train_batch(self, indices: Tensor, slot: int, images: Tensor) -> TeacherBatch:  # noqa: ARG002
        """One forward pass; indices and slot, by which outputs can be stored, are not looked at."""
        return self._ask(images, maps=self.gives_maps)

    def validation(self, indices: Tensor, images: Tensor) -> TeacherBatch:  # noqa: ARG002
        """One forward pass, without maps."""
        return self._ask(images, maps=False)

    def _ask(self, images: Tensor, *, maps: bool) -> TeacherBatch:
        self.forwards += len(images)
        outputs: TeacherBatch = self._teacher(images, maps=maps)
        return outputs
