"""Adaptive temperatures: each sample's student and teacher temperatures make both predictions equally sharp."""

from torch import Tensor

from trainables.losses.logits import atkd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS


def atkd_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · τ_s² KL(softmax(z / τ_t) || softmax(z_s / τ_s)).

    With an adapter, adapter_ce_weight · CE(z_a, y) is added, and z and τ_t come from the adapted logits. An adapter
    then changes the shape of a sample's target and not the target's sharpness.

    Args:
        outputs: step outputs with `student_logits`, and `teacher_logits` or `adapted_logits`; each (B, C).
        labels: (B,) int64.
        temperature: common factor of τ_s and τ_t. Each τ is this factor times the standard deviation of the sample's
            logits.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy.
        detach_adapter_target: stop the distillation loss's gradient before the adapter.

    Returns:
        Loss parts `total`, `ce`, `kd` and, with an adapter, `adapter`.

    Source:
        Guo, "Reducing the Teacher-Student Gap via Adaptive Temperatures" (2022); `atkd_loss` lists our own choices.
        The adapter is ours.
    """
    target_logits = outputs.target_logits(detached=detach_adapter_target)
    kd = atkd_loss(outputs.student_logits, target_logits, temperature=temperature)
    return weighted_sum(
        outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight, adapter_ce_weight=adapter_ce_weight
    )


METHOD = Method(METHOD_SPECS["atkd"], atkd_losses)
