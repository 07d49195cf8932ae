"""Normalised distillation: the label's probability, and the distribution over the other classes, matched apart."""

from torch import Tensor

from trainables.losses.labelled import nkd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS


def nkd_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    nkd_gamma: float,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · (-t_y log s_y + nkd_gamma · T² KL(t' || s')).

    t_y and s_y are the label's probabilities, and t' and s' the distributions over the other classes. With an adapter,
    adapter_ce_weight · CE(z_a, y) is added, and t' comes from the adapted logits. So does t_y, as a constant: a
    gradient through t_y would lower the adapted teacher's confidence in every label.

    Args:
        outputs: step outputs with `student_logits`, and `teacher_logits` or `adapted_logits`; each (B, C).
        labels: (B,) int64.
        temperature: T, softens the other classes of both sides.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of both parts together.
        nkd_gamma: weight of the other classes' part.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy.
        detach_adapter_target: stop the distillation loss's gradient before the adapter.

    Returns:
        Loss parts `total`, `ce`, `kd` and, with an adapter, `adapter`.

    Source:
        Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation" (2023); `nkd_loss` lists the
        differences. The adapter is ours.
    """
    target_logits = outputs.target_logits(detached=detach_adapter_target)
    kd = nkd_loss(outputs.student_logits, target_logits, labels, temperature=temperature, gamma=nkd_gamma)
    return weighted_sum(
        outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight, adapter_ce_weight=adapter_ce_weight
    )


METHOD = Method(METHOD_SPECS["nkd"], nkd_losses)
