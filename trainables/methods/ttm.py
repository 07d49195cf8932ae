"""Transformed teacher matching: only the teacher is tempered."""

from torch import Tensor

from trainables.losses.logits import ttm_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS


def ttm_losses(
    outputs: StepOutputs, labels: Tensor, *, ce_weight: float, kd_weight: float, ttm_gamma: float
) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · KL(p^γ / Σ p^γ || softmax(z_s)), with p the teacher's probabilities.

    Args:
        outputs: step outputs with `student_logits` and `teacher_logits`, both (B, C).
        labels: (B,) int64.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence.
        ttm_gamma: γ.

    Returns:
        Loss parts `total`, `ce` and `kd`.

    Source:
        Zheng and Yang, "Knowledge Distillation Based on Transformed Teacher Matching" (2024).
    """
    kd = ttm_loss(outputs.student_logits, outputs.target_logits(), gamma=ttm_gamma)
    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["ttm"], ttm_losses)
