"""PESF-KD: the teacher stays frozen, and an adapter learns to make its soft labels student-friendly."""

from typing import Literal

from torch import Tensor

from trainables.closed_form import ClosedForm
from trainables.losses import kd_loss, probability_mse_loss
from trainables.methods.method import LossParts, Method, StepOutputs, weighted_sum


def pesf_kd_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
    distance: Literal["kl", "mse"],
) -> LossParts:
    """Losses of student and adapter, minimised together.

    ce_weight · CE(z_s, y) + kd_weight · D + adapter_ce_weight · CE(z_a, y), with z_a the adapted logits and D either
    T² KL(softmax(z_a / T) || softmax(z_s / T)) or T² times the mean squared difference of the two. The distance sends
    gradient to the student and, unless the target is detached, to the adapter, which thereby moves towards the
    student.

    Args:
        outputs: needs `student_logits` and `adapted_logits`, (B, C).
        labels: (B,) int64.
        temperature: softens both sides of the distance.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the distance.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy.
        detach_adapter_target: the distance's gradient does not reach the adapter.
        distance: `kl` as in the paper's vision experiments, `mse` of probabilities as in its language ones.

    Returns:
        The parts `total`, `ce`, `kd` and `adapter`.

    Source:
        Rao et al., "Parameter-Efficient and Student-Friendly Knowledge Distillation" (2022). The separate
        weight of the adapter's cross-entropy and the detached target are ours.
    """
    distance_of = kd_loss if distance == "kl" else probability_mse_loss
    target = outputs.taught_by(detached=detach_adapter_target)
    kd = distance_of(outputs.student_logits, target, temperature=temperature)
    return weighted_sum(
        outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight, adapter_ce_weight=adapter_ce_weight
    )


def closed_form(
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
    distance: Literal["kl", "mse"],
) -> ClosedForm | None:
    """Losses and gradients by formula; None for the squared distance, which has none here."""
    if distance != "kl":
        return None
    return ClosedForm(
        temperature=temperature,
        ce_weight=ce_weight,
        kd_weight=kd_weight,
        adapter_ce_weight=adapter_ce_weight,
        detach_adapter_target=detach_adapter_target,
    )


METHOD = Method(name="pesf_kd", losses=pesf_kd_losses, has_adapter=True, closed_form=closed_form)
