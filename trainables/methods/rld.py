"""Refined logits: distil the teacher's confidence, and the classes ranked below the true label by the teacher."""

from torch import Tensor

from trainables.losses.labelled import rld_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, warmup_factor, weighted_sum
from trainables.spec.methods import METHOD_SPECS


def rld_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    rld_alpha: float,
    rld_beta: float,
    warmup_epochs: int,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · w · T² (rld_alpha · SCD + rld_beta · MCD).

    The factor w grows from 1 / n to 1 in the first n epochs. With an adapter, adapter_ce_weight · CE(z_a, y) is added,
    and SCD and MCD use the adapted logits.

    Args:
        outputs: step outputs with `student_logits`, and `teacher_logits` or `adapted_logits`; each (B, C).
        labels: (B,) int64.
        temperature: T, softens both sides.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of SCD and MCD together.
        rld_alpha: weight of SCD, the divergence on the confidence.
        rld_beta: weight of MCD, the divergence over the classes below the label.
        warmup_epochs: n. In epoch e, counted from 1, w is min(e / n, 1); 0 disables the warm-up.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy.
        detach_adapter_target: stop the distillation loss's gradient before the adapter.

    Returns:
        Loss parts `total`, `ce`, `kd` (before multiplication by w) and, with an adapter, `adapter`.

    Source:
        Sun et al., "Knowledge Distillation with Refined Logits" (2024), with the warm-up of the paper's code. The
        adapter is ours.
    """
    target_logits = outputs.target_logits(detached=detach_adapter_target)
    kd = rld_loss(
        outputs.student_logits, target_logits, labels, temperature=temperature, alpha=rld_alpha, beta=rld_beta
    )
    warm = warmup_factor(outputs.epoch, warmup_epochs)
    return weighted_sum(
        outputs, labels, kd, ce_weight=ce_weight, kd_weight=warm * kd_weight, adapter_ce_weight=adapter_ce_weight
    )


METHOD = Method(METHOD_SPECS["rld"], rld_losses)
