"""The frozen teacher's outputs for one batch, and the protocol of what gives them."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


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

    def stored_bytes(self, slots: int) -> int:
        """What the rows of the first `slots` slots and of the validation split take where they are stored."""

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
