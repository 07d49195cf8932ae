"""The frozen teacher's outputs for one batch, and the protocol for output sources."""

from collections.abc import Sequence
from typing import NamedTuple, Protocol

import torch
from torch import Tensor


class TeacherBatch(NamedTuple):
    """The frozen teacher's outputs for one batch, without gradient.

    Args:
        feature: (B, D), penultimate features.
        logits: (B, C), the teacher head's output for these features.
        maps: feature maps after the stem and after each stage, each (B, C_i, H_i, W_i). None unless requested. Maps are
            never stored, because an image's maps are hundreds of times as large as the feature.
    """

    feature: Tensor
    logits: Tensor
    maps: tuple[Tensor, ...] | None = None

    @classmethod
    def joined(cls, batches: Sequence["TeacherBatch"]) -> "TeacherBatch":
        """Concatenate the features and logits from several batches."""
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
        """Return the stored rows' size in bytes for the first `slots` slots and the validation split."""

    def train_batch(self, indices: Tensor, slot: int, images: Tensor) -> TeacherBatch:
        """Return the outputs for a train batch.

        Args:
            indices: (B,) int64, rows in the train split.
            slot: augmented view index for each sample (see `trainables.data.views`).
            images: (B, C, H, W) float32, these samples' normalised images in these views.
        """

    def validation(self, indices: Tensor, images: Tensor) -> TeacherBatch:
        """Return the outputs for all or some validation samples.

        Args:
            indices: (B,) int64, rows in the validation split.
            images: (B, C, H, W) float32, these samples' normalised images.
        """
