"""Curriculum temperature: the temperature is trained against the student, weakly at first, so targets get harder."""

import math
from typing import Any

import torch
from torch import Tensor, nn

from trainables.losses.logits import kd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, PartsSetting, weighted_sum
from trainables.spec.methods import METHOD_SPECS


class LearntTemperature(nn.Module):
    """Trainable temperature start + extent · sigmoid(θ), with θ initialised to 1.

    Args:
        start: lower bound of the temperature.
        extent: upper bound minus lower bound.
    """

    def __init__(self, start: float, extent: float) -> None:
        super().__init__()
        self.start = start
        self.extent = extent
        self.theta = nn.Parameter(torch.ones(()))

    def forward(self, strength: float) -> Tensor:
        """Compute the temperature, a scalar; θ receives the gradient times -`strength`."""
        return self.start + self.extent * torch.sigmoid(_Reversed.apply(self.theta, strength))


class _Reversed(torch.autograd.Function):
    """Identity that multiplies the gradient by -strength."""

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
    """Build the method's only module, the temperature."""
    return LearntTemperature(ctkd_temperature_start, ctkd_temperature_range)


def curriculum(epoch: int, epochs: int) -> float:
    """Compute the strength of the reversed gradient, (1 - cos(π · min(e / n, 1))) / 2.

    Args:
        epoch: counted from 0; e = epoch + 1.
        epochs: n. The strength is 1 from epoch e = n on.
    """
    return 0.5 * (1 - math.cos(math.pi * min((epoch + 1) / epochs, 1.0)))


def ctkd_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    ce_weight: float,
    kd_weight: float,
    ctkd_curriculum_epochs: int,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · T² KL(softmax(z / T) || softmax(z_s / T)).

    The student minimises the loss, and the temperature T maximises the loss. With an adapter, adapter_ce_weight ·
    CE(z_a, y) is added, and z are the adapted logits. The adapter minimises the loss too.

    Args:
        outputs: step outputs with `student_logits`, and `teacher_logits` or `adapted_logits`, each (B, C); the learnt
            temperature in `parts`, and `epoch`.
        labels: (B,) int64.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence.
        ctkd_curriculum_epochs: number of epochs until the temperature's reversed gradient has full strength.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy.
        detach_adapter_target: stop the distillation loss's gradient before the adapter.

    Returns:
        Loss parts `total`, `ce`, `kd` and, with an adapter, `adapter`.

    Source:
        Li et al., "Curriculum Temperature for Knowledge Distillation" (2023), with the global temperature instead of
        one temperature per sample. Start, range, cosine and training with the student's optimiser follow the paper's
        code. The gradient also flows through T². The adapter is ours.
    """
    assert isinstance(outputs.parts, LearntTemperature)
    target_logits = outputs.target_logits(detached=detach_adapter_target)
    temperature = outputs.parts(curriculum(outputs.epoch, ctkd_curriculum_epochs))
    kd = kd_loss(outputs.student_logits, target_logits, temperature=temperature)
    return weighted_sum(
        outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight, adapter_ce_weight=adapter_ce_weight
    )


METHOD = Method(METHOD_SPECS["ctkd"], ctkd_losses, parts=learnt_temperature)
