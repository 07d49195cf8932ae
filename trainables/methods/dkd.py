"""Decoupled distillation: what the teacher says of the label and what it says of the other classes, weighed apart."""

from torch import Tensor

from trainables.losses.logits import dkd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS


def dkd_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    dkd_alpha: float,
    dkd_beta: float,
    warmup_epochs: int,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
) -> LossParts:
    """ce_weight · CE(z_s, y) + kd_weight · w · T² (dkd_alpha · TCKD + dkd_beta · NCKD), w growing from 1 / n to 1.

    With an adapter, + adapter_ce_weight · CE(z_a, y), and TCKD and NCKD are those of the adapted logits.

    Args:
        outputs: needs `student_logits` and `teacher_logits` or `adapted_logits`, (B, C).
        labels: (B,) int64.
        temperature: softens both sides.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of both distillation parts together.
        dkd_alpha: weight of the label's part, TCKD.
        dkd_beta: weight of the other classes' part, NCKD.
        warmup_epochs: n; in epoch e, counted from 1, w is min(e / n, 1); 0 for none.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy.
        detach_adapter_target: the distillation loss's gradient does not reach the adapter.

    Returns:
        The parts `total`, `ce`, `kd` (before w) and, with an adapter, `adapter`.

    Source:
        Zhao et al., "Decoupled Knowledge Distillation" (2022), with the warm-up of its code. The adapter is ours.
    """
    taught_by = outputs.taught_by(detached=detach_adapter_target)
    kd = dkd_loss(outputs.student_logits, taught_by, labels, temperature=temperature, alpha=dkd_alpha, beta=dkd_beta)
    warm = min((outputs.epoch + 1) / warmup_epochs, 1.0) if warmup_epochs else 1.0
    return weighted_sum(
        outputs, labels, kd, ce_weight=ce_weight, kd_weight=warm * kd_weight, adapter_ce_weight=adapter_ce_weight
    )


METHOD = Method(METHOD_SPECS["dkd"], dkd_losses)
