"""Adaptive temperatures: each sample's, of student and teacher apart, such that both are equally sharp."""

from torch import Tensor

from trainables.losses.logits import atkd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS


def atkd_losses(
    outputs: StepOutputs, labels: Tensor, *, temperature: float, ce_weight: float, kd_weight: float
) -> LossParts:
    """ce_weight · CE(z_s, y) + kd_weight · τ_s² KL(softmax(z / τ_t) || softmax(z_s / τ_s)).

    Args:
        outputs: needs `student_logits` and `teacher_logits`, (B, C).
        labels: (B,) int64.
        temperature: of both, in units of the standard deviation of each one's logits of a sample.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence.

    Returns:
        The parts `total`, `ce` and `kd`.

    Source:
        Guo, "Reducing the Teacher-Student Gap via Adaptive Temperatures" (2022); see `atkd_loss` for what is ours.
    """
    kd = atkd_loss(outputs.student_logits, outputs.taught_by(), temperature=temperature)
    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["atkd"], atkd_losses)
