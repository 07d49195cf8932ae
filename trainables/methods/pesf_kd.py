"""PESF-KD: the teacher stays frozen, and an adapter learns to make its soft labels student-friendly."""

from typing import Literal

from torch import Tensor

from trainables.losses.logits import kd_loss, probability_mse_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.losses.sharpness import sharpness_gap
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS
from trainables.steps.closed_form import ClosedForm

GapControl = Literal["none", "paper", "centred", "placebo"]


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
    gap_control: GapControl,
    gap_target: float,
    gap_weight: float,
) -> LossParts:
    """Losses of student and adapter, minimised together.

    ce_weight · CE(z_s, y) + kd_weight · D + adapter_ce_weight · CE(z_a, y), with z_a the adapted logits and D either
    T² KL(softmax(z_a / T) || softmax(z_s / T)) or T² times the mean squared difference of the two. The distance sends
    gradient to the student and, unless the target is detached, to the adapter, which thereby moves towards the
    student.

    Where the gap is imposed, gap_weight · (gap - gap_target)² is added, with the batch's gap, mean(sharpness(z_a) -
    sharpness(z_s)) at temperature 1. Its gradient reaches the adapter alone, whether the target is detached or not: the
    student is taught by a teacher that keeps its distance, and is not itself pushed to it.

    Args:
        outputs: needs `student_logits` and `adapted_logits`, (B, C).
        labels: (B,) int64.
        temperature: softens both sides of the distance.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the distance.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy.
        detach_adapter_target: the distance's gradient does not reach the adapter.
        distance: `kl` as in the paper's vision experiments, `mse` of probabilities as in its language ones.
        gap_control: `paper` imposes the gap as the paper measures it, which an adapter can also meet by adding a
            constant to all logits; `centred` the gap after subtracting each row's mean logit, which it cannot; `none`
            and `placebo` impose nothing (in a placebo the adapter itself adds a constant, see `TeacherAdapter`).
        gap_target: in nats, where the gap is imposed.
        gap_weight: weight of the penalty, where the gap is imposed.

    Returns:
        The parts `total`, `ce`, `kd` and `adapter`, and `gap`, the penalty before its weight, where it is imposed.

    Source:
        Rao et al., "Parameter-Efficient and Student-Friendly Knowledge Distillation" (2022). The separate
        weight of the adapter's cross-entropy, the detached target and the imposed gap are ours.
    """
    distance_of = kd_loss if distance == "kl" else probability_mse_loss
    target = outputs.taught_by(detached=detach_adapter_target)
    kd = distance_of(outputs.student_logits, target, temperature=temperature)
    parts = weighted_sum(
        outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight, adapter_ce_weight=adapter_ce_weight
    )
    if gap_control not in ("paper", "centred"):
        return parts
    student = outputs.student_logits.detach()
    gap = sharpness_gap(outputs.taught_by(), student, centred=gap_control == "centred")
    penalty = (gap - gap_target) ** 2
    return parts._replace(total=parts.total + gap_weight * penalty, gap=penalty)


def closed_form(
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
    distance: Literal["kl", "mse"],
    gap_control: GapControl,
    gap_target: float,  # noqa: ARG001 - the formulas are of a gap that is left alone
    gap_weight: float,  # noqa: ARG001
) -> ClosedForm | None:
    """Losses and gradients by formula; None where autograd is to find them.

    It does for the squared distance and wherever the gap is controlled. A pack knows both fields to be the same in all
    its trials (`SHARED_FIELDS`), so all of them go the same way.
    """
    if distance != "kl" or gap_control != "none":
        return None
    return ClosedForm(
        temperature=temperature,
        ce_weight=ce_weight,
        kd_weight=kd_weight,
        adapter_ce_weight=adapter_ce_weight,
        detach_adapter_target=detach_adapter_target,
    )


METHOD = Method(METHOD_SPECS["pesf_kd"], pesf_kd_losses, closed_form=closed_form)
