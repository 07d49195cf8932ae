"""Curriculum temperature: it is learnt against the student, little at first, so that the lessons get harder."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from trainables.losses.logits import kd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, PartsSetting, weighted_sum
from trainables.spec.methods import METHOD_SPECS


class LearntTemperature(nn.Module):
    """start + range · sigmoid(θ), with θ = 1 at first.

    Args:
        start: the lowest temperature.
        extent: the highest less the lowest.
    """

    def __init__(self, start: float, extent: float) -> None:
        super().__init__()
        self.start = start
        self.extent = extent
        self.theta = nn.Parameter(torch.ones(()))

    def forward(self, strength: float) -> Tensor:
        """The temperature, a scalar, whose gradient reaches θ times -`strength`."""
        return self.start + self.extent * torch.sigmoid(_Reversed.apply(self.theta, strength))


class _Reversed(torch.autograd.Function):
    """The identity, whose gradient is turned round."""

    @staticmethod
    def forward(ctx: Any, values: Tensor, strength: float) -> Tensor:
        ctx.strength = strength
        return values.clone()

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        return -ctx.strength * gradients[0], None


def learnt_temperature(
    setting: PartsSetting,  # noqa: ARG001
    *,
    ctkd_temperature_start: float,
    ctkd_temperature_range: float,
) -> LearntTemperature:
    """The one part of the method."""
    return LearntTemperature(ctkd_temperature_start, ctkd_temperature_range)


def curriculum(epoch: int, epochs: int) -> float:
    """How strongly the temperature opposes the student: (1 - cos(π · min(e / n, 1))) / 2.

    Args:
        epoch: counted from 0; e is one more.
        epochs: n, after which it is 1.
    """
    return 0.5 * (1 - math.cos(math.pi * min((epoch + 1) / epochs, 1.0)))


def ctkd_losses(
    outputs: StepOutputs, labels: Tensor, *, ce_weight: float, kd_weight: float, ctkd_curriculum_epochs: int
) -> LossParts:
    """ce_weight · CE(z_s, y) + kd_weight · T² KL(softmax(z / T) || softmax(z_s / T)), which T ascends.

    Args:
        outputs: needs `student_logits` and `teacher_logits`, (B, C), the learnt temperature in `parts`, and `epoch`.
        labels: (B,) int64.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence.
        ctkd_curriculum_epochs: epochs until the temperature's reversed gradient counts in full.

    Returns:
        The parts `total`, `ce` and `kd`.

    Source:
        Li et al., "Curriculum Temperature for Knowledge Distillation" (2023): its global temperature (not the one per
        sample), with the start, the range and the cosine of its code. The temperature learns by the student's
        optimiser, as there; the gradient goes through T² too.
    """
    assert isinstance(outputs.parts, LearntTemperature)
    temperature = outputs.parts(curriculum(outputs.epoch, ctkd_curriculum_epochs))
    kd = kd_loss(outputs.student_logits, outputs.taught_by(), temperature=temperature)
    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["ctkd"], ctkd_losses, parts=learnt_temperature)
