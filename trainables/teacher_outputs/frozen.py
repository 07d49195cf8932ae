"""Frozen teacher model, with input image renormalisation where needed."""

import hashlib
from collections.abc import Sequence
from typing import NamedTuple, Self

import torch
from torch import Tensor, nn

from trainables.models import DistillationModel
from trainables.models.compute import forward_pass
from trainables.storage.tensors import tensors_digest
from trainables.teacher_outputs.batch import TeacherBatch


class Renormalisation(NamedTuple):
    """Conversion from one image normalisation to another: `images · scale + shift`, per channel.

    For pixels p, let x = (p − m) / s and x' = (p − m') / s'. Then x' = x · s / s' + (m − m') / s'. The conversion is
    also exact at an image's border: networks pad the converted image with zeros, and zero has the same meaning as
    in training.

    Args:
        scale: (C,).
        shift: (C,).
    """

    scale: tuple[float, ...]
    shift: tuple[float, ...]

    @classmethod
    def between(
        cls, mean: Sequence[float], std: Sequence[float], own_mean: Sequence[float], own_std: Sequence[float]
    ) -> "Renormalisation | None":
        """Compute the conversion from images with `mean` and `std` to images with `own_mean` and `own_std`.

        Returns:
            The conversion. None if both normalisations are equal: nothing is computed, and no bit changes.
        """
        if (*mean, *std) == (*own_mean, *own_std):
            return None
        scale = tuple(s / own for s, own in zip(std, own_std, strict=True))
        shift = tuple((m - own) / own_s for m, own, own_s in zip(mean, own_mean, own_std, strict=True))
        return cls(scale, shift)


class FrozenTeacher(nn.Module):
    """Frozen trained model: always in eval mode, even after `.train()`, and without gradients.

    Args:
        model: trained model, frozen in place.
        renormalise: conversion from the input normalisation to the training normalisation, if they differ.
        training_seconds: training time in seconds, if known.
    """

    _scale: Tensor | None
    _shift: Tensor | None

    def __init__(
        self,
        model: DistillationModel,
        *,
        renormalise: Renormalisation | None = None,
        training_seconds: float | None = None,
    ) -> None:
        super().__init__()
        self.training_seconds = training_seconds
        self.model = model.requires_grad_(False)
        self.digest = tensors_digest(model.state_dict())
        for name in Renormalisation._fields:
            # Stored in float64 and rounded to the images' dtype on use. All dtypes thus start from the same values.
            values = None if renormalise is None else torch.tensor(getattr(renormalise, name), dtype=torch.float64)
            self.register_buffer(f"_{name}", None if values is None else values.view(1, -1, 1, 1), persistent=False)
        if renormalise is not None:
            self.digest = hashlib.sha256(f"{self.digest}|{renormalise}".encode()).hexdigest()
        self.eval()

    @property
    def head(self) -> nn.Linear:
        """Last linear layer."""
        return self.model.head

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Stay in eval mode for any `mode`, so batch statistics never change the teacher."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor, *, maps: bool = False) -> TeacherBatch:
        """Compute penultimate features (B, D) and logits (B, C).

        Args:
            images: (B, channels, H, W), with the study's normalisation.
            maps: whether to return the stages' feature maps too.
        """
        return TeacherBatch(*forward_pass(self.model, self.renormalised(images), maps=maps))

    def renormalised(self, images: Tensor) -> Tensor:
        """Convert images from the study's normalisation to the model's training normalisation."""
        if self._scale is None or self._shift is None:
            return images
        return images * self._scale.to(images.dtype) + self._shift.to(images.dtype)
