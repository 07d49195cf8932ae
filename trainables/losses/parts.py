"""What one step's losses take and give."""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn


class StepOutputs(NamedTuple):
    """What the networks say of one batch, and where in the trial it is; None for what the method does not have.

    Args:
        student_feature: (B, D of the student), its penultimate feature.
        student_logits: (B, C).
        teacher_feature: (B, D of the teacher), without gradient.
        teacher_logits: (B, C), the frozen teacher's, without gradient.
        adapted_logits: (B, C), with the gradient of the adapter, or of the teacher where it learns itself.
        peer_logits: (B, C), of the network that learns beside the student, with its gradient.
        parts: the method's own parts, trained with the student.
        indices: (B,) int64, the samples' rows in the train split.
        epoch: the one that is running, counted from 0.
        generator: draws what the losses draw; it starts anew in every epoch.
        student_maps: after the student's stem and each of its stages, (B, C_i, H_i, W_i); see `FeatureMaps`.
        teacher_maps: the teacher's, in number, width and size as that net has them, without gradient.
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

    def taught_by(self, *, detached: bool = False) -> Tensor:
        """The logits (B, C) that teach the student: the adapted ones where there is an adapter.

        Args:
            detached: without the adapter's gradient.
        """
        logits = self.teacher_logits if self.adapted_logits is None else self.adapted_logits
        assert logits is not None
        return logits.detach() if detached else logits


class LossParts(NamedTuple):
    """The loss of one batch in named parts, scalars; None for a part that the method does not have.

    Args:
        total: what is minimised, the weighted sum of the parts.
        ce: the student's cross-entropy, before its weight.
        kd: the distillation loss, T² included, before its weight.
        adapter: the adapted teacher's cross-entropy, before its weight.
        peer: all that the student's peer learns by, weighted.
        gap: the penalty on a sharpness gap that is imposed, before its weight.
    """

    total: Tensor
    ce: Tensor | None = None
    kd: Tensor | None = None
    adapter: Tensor | None = None
    peer: Tensor | None = None
    gap: Tensor | None = None

    def detach(self) -> "LossParts":
        """The same values without their graph."""
        rest = (None if part is None else part.detach() for part in self[1:])
        return LossParts(self.total.detach(), *rest)


# (outputs, labels (B,) int64) -> the batch's losses
Objective = Callable[[StepOutputs, Tensor], LossParts]
