"""Weighted transformed teacher matching: samples with an uncertain teacher get more weight."""

from torch import Tensor

from trainables.losses.logits import ttm_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS


def wttm_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    ce_weight: float,
    kd_weight: float,
    ttm_gamma: float,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · mean(Σ p^γ · KL(p^γ / Σ p^γ || softmax(z_s))).

    p are the teacher's probabilities; the mean is over the batch. With an adapter, adapter_ce_weight · CE(z_a, y) is
    added, and p are the probabilities of the adapted logits. The adapter's gradient then flows through the weights
    Σ p^γ too.

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
    kd = ttm_loss(outputs.student_logits, target_logits, gamma=ttm_gamma, weighted=True)
    return weighted_sum(
        outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight, adapter_ce_weight=adapter_ce_weight
    )


METHOD = Method(METHOD_SPECS["wttm"], wttm_losses)
