"""Plackett-Luce distillation: the student ranks the label first, then the classes as the teacher ranks them."""

from torch import Tensor

from trainables.losses.labelled import pld_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS


def pld_losses(
    outputs: StepOutputs, labels: Tensor, *, temperature: float, ce_weight: float, kd_weight: float
) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · the weighted Plackett-Luce loss of the teacher's ranking.

    Args:
        outputs: step outputs with `student_logits` and `teacher_logits`, both (B, C).
        labels: (B,) int64.
        temperature: softens the teacher's probabilities, which weight the ranks.
        ce_weight: weight of the student's cross-entropy; 0 as published, because the ranking contains a weighted one.
        kd_weight: weight of the ranking.

    Returns:
        Loss parts `total`, `ce` and `kd`.

    Source:
        Bassam, Zhu and Bian, "PLD: A Choice-Theoretic List-Wise Knowledge Distillation" (2025).
    """
    kd = pld_loss(outputs.student_logits, outputs.target_logits(), labels, temperature=temperature)
    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["pld"], pld_losses)
