"""Outputs of the frozen teacher for one batch, and the protocol for sources of such outputs."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class TeacherBatch(NamedTuple):
    """Outputs of the frozen teacher for one batch, without gradient.

    Args:
        feature: (B, D), penultimate features.
        logits: (B, C), output of the teacher's head for these features.
        maps: feature maps after the stem and after each stage, each (B, C_i, H_i, W_i). None unless requested. Maps are
            never stored, because the maps of one image are hundreds of times as large as the feature.
    """

    feature: Tensor
    logits: Tensor
    maps: tuple[Tensor, ...] | None = None

    @classmethod
    def joined(cls, batches: Sequence["TeacherBatch"]) -> "TeacherBatch":
        """Concatenate the features and logits of several batches."""
        return cls(torch.cat([each.feature for each in batches]), torch.cat([each.logits for each in batches]))


class TeacherOutputs(Protocol):
    """Source of the frozen teacher's outputs.

    Attributes:
        forwards: total number of samples passed through the teacher.
        stored: whether outputs are looked up. Otherwise they are computed from the images, in the student's precision.
        numbers_per_sample: number of values in a feature and the logits together.
    """

    forwards: int
    stored: bool
    numbers_per_sample: int

    @property
    def source(self) -> object:
        """Provider of the outputs. Sources with the same provider give the same outputs."""

    def stored_bytes(self, slots: int) -> int:
        """Return the size in bytes of the stored rows for the first `slots` slots and the validation split."""

    def train_batch(self, indices: Tensor, slot: int, images: Tensor) -> TeacherBatch:
        """Return the outputs for a batch of the train split.

        Args:
            indices: (B,) int64, rows of the train split.
            slot: index of the augmented view of each sample (see `trainables.data.views`).
            images: (B, C, H, W) float32, normalised images of these samples in these views.
        """

    def validation(self, indices: Tensor, images: Tensor) -> TeacherBatch:
        """Return the outputs for all or some samples of the validation split.

        Args:
            indices: (B,) int64, rows of the validation split.
            images: (B, C, H, W) float32, normalised images of these samples.
        """
