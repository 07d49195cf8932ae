"""Decoupled distillation: the teacher's label probability and the other classes have separate weights."""

from torch import Tensor

from trainables.losses.logits import dkd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, warmup_factor, weighted_sum
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
    """Compute ce_weight · CE(z_s, y) + kd_weight · w · T² (dkd_alpha · TCKD + dkd_beta · NCKD).

    The factor w grows from 1 / n to 1 in the first n epochs. With an adapter, adapter_ce_weight · CE(z_a, y) is added,
    and TCKD and NCKD use the adapted logits.

    Args:
        outputs: step outputs with `student_logits`, and `teacher_logits` or `adapted_logits`; each (B, C).
        labels: (B,) int64.
        temperature: T, softens both sides.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of TCKD and NCKD together.
        dkd_alpha: weight of TCKD, the divergence on the label's probability.
        dkd_beta: weight of NCKD, the divergence over the other classes.
        warmup_epochs: n. In epoch e, counted from 1, w is min(e / n, 1); 0 disables the warm-up.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy.
        detach_adapter_target: stop the distillation loss's gradient before the adapter.

    Returns:
        Loss parts `total`, `ce`, `kd` (before multiplication by w) and, with an adapter, `adapter`.

    Source:
        Zhao et al., "Decoupled Knowledge Distillation" (2022), with the warm-up of the paper's code. The adapter is
        ours.
    """
    target_logits = outputs.target_logits(detached=detach_adapter_target)
    kd = dkd_loss(
        outputs.student_logits, target_logits, labels, temperature=temperature, alpha=dkd_alpha, beta=dkd_beta
    )
    warm = warmup_factor(outputs.epoch, warmup_epochs)
    return weighted_sum(
        outputs, labels, kd, ce_weight=ce_weight, kd_weight=warm * kd_weight, adapter_ce_weight=adapter_ce_weight
    )


METHOD = Method(METHOD_SPECS["dkd"], dkd_losses)
