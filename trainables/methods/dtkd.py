"""Dynamic temperatures: each sample's student and teacher temperatures follow the sharpness of both predictions."""

from torch import Tensor

from trainables.losses.logits import dtkd_loss, kd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, warmup_factor, weighted_sum
from trainables.spec.methods import METHOD_SPECS


def dtkd_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    dtkd_alpha: float,
    dtkd_beta: float,
    warmup_epochs: int,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · w · (dtkd_alpha · `dtkd_loss` + dtkd_beta · T² KL).

    The factor w grows from 1 / n to 1 in the first n epochs. The KL divergence is computed by `kd_loss`. With an
    adapter, adapter_ce_weight · CE(z_a, y) is added, and both divergences use the adapted logits.

    Args:
        outputs: step outputs with `student_logits`, and `teacher_logits` or `adapted_logits`; each (B, C).
        labels: (B,) int64.
        temperature: T, mean of a sample's two temperatures, and the temperature of the KL divergence.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of both divergences together.
        dtkd_alpha: weight of the divergence with dynamic temperatures.
        dtkd_beta: weight of the divergence with the fixed temperature.
        warmup_epochs: n. In epoch e, counted from 1, w is min(e / n, 1); 0 disables the warm-up.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy.
        detach_adapter_target: stop the distillation loss's gradient before the adapter.

    Returns:
        Loss parts `total`, `ce`, `kd` (before multiplication by w) and, with an adapter, `adapter`.

    Source:
        Wei and Bai, "Dynamic Temperature Knowledge Distillation" (2024), with weights and warm-up of the paper's code;
        `dtkd_loss` lists the differences between paper and code. The adapter is ours.
    """
    teacher = outputs.target_logits(detached=detach_adapter_target)
    kd = dtkd_alpha * dtkd_loss(outputs.student_logits, teacher, temperature=temperature)
    kd = kd + dtkd_beta * kd_loss(outputs.student_logits, teacher, temperature=temperature)
    warm = warmup_factor(outputs.epoch, warmup_epochs)
    return weighted_sum(
        outputs, labels, kd, ce_weight=ce_weight, kd_weight=warm * kd_weight, adapter_ce_weight=adapter_ce_weight
    )


METHOD = Method(METHOD_SPECS["dtkd"], dtkd_losses)
