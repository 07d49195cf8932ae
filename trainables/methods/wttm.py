"""Weighted transformed teacher matching: samples with an uncertain teacher get more weight."""

from torch import Tensor

from trainables.losses.logits import ttm_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS


def wttm_losses(
    outputs: StepOutputs, labels: Tensor, *, ce_weight: float, kd_weight: float, ttm_gamma: float
) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · mean(Σ p^γ · KL(p^γ / Σ p^γ || softmax(z_s))).

    p are the teacher's probabilities; the mean is over the batch.

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
    kd = ttm_loss(outputs.student_logits, outputs.target_logits(), gamma=ttm_gamma, weighted=True)
    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["wttm"], wttm_losses)
