"""Distillation of standardised logits: the student matches the shape of the teacher's logits, at any scale."""

from torch import Tensor

from trainables.losses.logits import standardised_kd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS


def logit_standardisation_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · T² KL(softmax(u / T) || softmax(u_s / T)).

    u and u_s are the standardised logits of teacher and student. With an adapter, adapter_ce_weight · CE(z_a, y) is
    added, and u comes from the adapted logits.

    Args:
        outputs: step outputs with `student_logits`, and `teacher_logits` or `adapted_logits`; each (B, C).
        labels: (B,) int64.
        temperature: T, softens both sides after standardisation.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy.
        detach_adapter_target: stop the distillation loss's gradient before the adapter.

    Returns:
        Loss parts `total`, `ce`, `kd` and, with an adapter, `adapter`.

    Source:
        Sun et al., "Logit Standardization in Knowledge Distillation" (2024). The adapter is ours.
    """
    target_logits = outputs.target_logits(detached=detach_adapter_target)
    kd = standardised_kd_loss(outputs.student_logits, target_logits, temperature=temperature)
    return weighted_sum(
        outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight, adapter_ce_weight=adapter_ce_weight
    )


METHOD = Method(METHOD_SPECS["logit_standardisation"], logit_standardisation_losses)
