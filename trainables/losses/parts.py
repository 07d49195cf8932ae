"""Inputs and outputs of a training step's losses."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn


class StepOutputs(NamedTuple):
    """Model outputs for one mini-batch and the position in the trial. Fields not used by the method are None.

    Args:
        student_feature: the student's penultimate feature, (B, D_student).
        student_logits: (B, C).
        teacher_feature: the teacher's penultimate feature, (B, D_teacher), without gradient.
        teacher_logits: the frozen teacher's logits, (B, C), without gradient.
        adapted_logits: (B, C), with gradients to the adapter. If the method trains the teacher, the trained teacher's
            logits.
        peer_logits: logits of the peer network, trained together with the student, (B, C), with gradients to the peer.
        parts: the method's own modules, trained with the student.
        indices: (B,) int64, sample rows in the train split.
        epoch: current epoch, counted from 0.
        generator: random generator for the losses, seeded again at the start of every epoch.
        student_maps: feature maps after the student's stem and after each stage, (B, C_i, H_i, W_i); see `FeatureMaps`.
        teacher_maps: the same for the teacher, without gradient. Number, width and size may differ from the student's.
        epochs: number of epochs in the trial.
        class_distances: (C, C), distances between the classes; see `trainables.run.class_distances`.
    """

    student_feature: Tensor
    student_logits: Tensor
    teacher_feature: Tensor | None = None
    teacher_logits: Tensor | None = None
    adapted_logits: Tensor | None = None
    peer_logits: Tensor | None = None
    parts: nn.Module | None = None
    indices: Tensor | None = None
    epoch: int = 0
    generator: torch.Generator | None = None
    student_maps: tuple[Tensor, ...] | None = None
    teacher_maps: tuple[Tensor, ...] | None = None
    epochs: int = 1
    class_distances: Tensor | None = None

    def target_logits(self, *, detached: bool = False) -> Tensor:
        """Return the target logits (B, C): the adapted logits if there are any, otherwise the teacher logits.

        Args:
            detached: block gradients to the adapter.
        """
        logits = self.teacher_logits if self.adapted_logits is None else self.adapted_logits
        assert logits is not None
        return logits.detach() if detached else logits


class LossParts(NamedTuple):
    """Loss of one mini-batch in named parts, all scalars. Parts missing in the method are None.

    Args:
        total: minimised loss, the weighted sum of the parts.
        ce: student cross-entropy, before weighting.
        kd: distillation loss, T² included, before weighting.
        adapter: cross-entropy of the adapted teacher, before weighting.
        peer: total loss of the peer network, after weighting.
        gap: penalty on an imposed sharpness gap, before weighting.
        adapter_kd: distance between student and adapted teacher, for methods with another distillation loss `kd`.
    """

    total: Tensor
    ce: Tensor | None = None
    kd: Tensor | None = None
    adapter: Tensor | None = None
    peer: Tensor | None = None
    gap: Tensor | None = None
    adapter_kd: Tensor | None = None

    def detach(self) -> "LossParts":
        """Return the same values without their autograd graph."""
        rest = (None if part is None else part.detach() for part in self[1:])
        return LossParts(self.total.detach(), *rest)

    @classmethod
    def side_by_side(cls, parts: Sequence["LossParts"]) -> "LossParts":
        """Stack the losses of K trials into parts of shape (K,); only the total keeps its graph."""
        columns = list(zip(*(each.detach() for each in parts), strict=True))[1:]
        rest = (None if column[0] is None else torch.stack(column) for column in columns)
        return cls(torch.stack([each.total for each in parts]), *rest)


# Maps (outputs, labels (B,) int64) to the losses of the mini-batch.
Objective = Callable[[StepOutputs, Tensor], LossParts]
