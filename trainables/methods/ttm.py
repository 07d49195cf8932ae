"""Transformed teacher matching: only the teacher is tempered."""

from torch import Tensor

from trainables.losses.logits import ttm_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS


def ttm_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    ce_weight: float,
    kd_weight: float,
    ttm_gamma: float,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · KL(p^γ / Σ p^γ || softmax(z_s)), with p the teacher's probabilities.

    With an adapter, adapter_ce_weight · CE(z_a, y) is added, and p are the probabilities of the adapted logits.

    Args:
        outputs: step outputs with `student_logits`, and `teacher_logits` or `adapted_logits`; each (B, C).
        labels: (B,) int64.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence.
        ttm_gamma: γ.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy.
        detach_adapter_target: stop the distillation loss's gradient before the adapter.

    Returns:
        Loss parts `total`, `ce`, `kd` and, with an adapter, `adapter`.

    Source:
        Zheng and Yang, "Knowledge Distillation Based on Transformed Teacher Matching" (2024). The adapter is ours.
    """
    target_logits = outputs.target_logits(detached=detach_adapter_target)
    kd = ttm_loss(outputs.student_logits, target_logits, gamma=ttm_gamma)
    return weighted_sum(
        outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight, adapter_ce_weight=adapter_ce_weight
    )


METHOD = Method(METHOD_SPECS["ttm"], ttm_losses)
