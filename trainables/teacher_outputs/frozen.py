"""The network that never changes again, and what stands before it where it knows its images otherwise normalised."""

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
    """From one normalisation of images to another: `images · scale + shift`, by channel.

    With pixels p, x = (p − m) / s and x' = (p − m') / s', it is x' = x · s / s' + (m − m') / s'. It is exact at an
    image's border too: nets pad with zeros what they are given, which then is their own normalisation's zero.

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
        """What takes images normalised by `mean` and `std` to ones normalised by `own_mean` and `own_std`.

        Returns:
            None where both are the same, so that nothing is computed and every bit stays.
        """
        if (*mean, *std) == (*own_mean, *own_std):
            return None
        scale = tuple(s / own for s, own in zip(std, own_std, strict=True))
        shift = tuple((m - own) / own_s for m, own, own_s in zip(mean, own_mean, own_std, strict=True))
        return cls(scale, shift)


class FrozenTeacher(nn.Module):
    """A trained network that never changes again: in eval mode even after `.train()`, and without gradient.

    Args:
        model: the trained network; it is frozen in place.
        renormalise: from the normalisation of the images that it is given to the one it was trained with, where they
            differ.
        training_seconds: what its training took, where that is known.
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
            # In float64, and rounded to the images' type where they are used: the same for every type of images.
            values = None if renormalise is None else torch.tensor(getattr(renormalise, name), dtype=torch.float64)
            self.register_buffer(f"_{name}", None if values is None else values.view(1, -1, 1, 1), persistent=False)
        if renormalise is not None:
            self.digest = hashlib.sha256(f"{self.digest}|{renormalise}".encode()).hexdigest()
        self.eval()

    @property
    def head(self) -> nn.Linear:
        """Its last linear layer."""
        return self.model.head

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Stay in eval mode, whatever `mode` says: batch statistics must not move the teacher."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor, *, maps: bool = False) -> TeacherBatch:
        """Penultimate feature (B, D) and logits (B, C) of images (B, channels, H, W) as the study normalises them.

        Args:
            images: normalised.
            maps: whether the maps of its stages are asked for too.
        """
        return TeacherBatch(*forward_pass(self.model, self.renormalised(images), maps=maps))

    def renormalised(self, images: Tensor) -> Tensor:
        """Images as its network knows them, from images as the study normalises them."""
        if self._scale is None or self._shift is None:
            return images
        return images * self._scale.to(images.dtype) + self._shift.to(images.dtype)
