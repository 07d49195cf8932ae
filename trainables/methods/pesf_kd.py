"""PESF-KD: the teacher stays frozen, and a trained adapter makes the teacher's soft labels student-friendly."""

from torch import Tensor

from trainables.losses.logits import kd_loss, probability_mse_loss, swapped_kd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.losses.sharpness import sharpness_gap
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS
from trainables.spec.methods.basic import GapControl
from trainables.spec.methods.pesf_variants import PesfVariant
from trainables.spec.methods.settings import Distance
from trainables.steps.closed_form import ClosedForm


def pesf_kd_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
    pesf_variant: PesfVariant,
    distance: Distance,
    gap_control: GapControl,
    gap_target: float,
    gap_weight: float,
) -> LossParts:
    """Compute the losses of student and adapter, minimised together in one step.

    The loss is ce_weight · CE(z_s, y) + kd_weight · D + adapter_ce_weight · CE(z_a, y), with z_a the adapted logits.
    The distance D is T² KL(softmax(z_a / T) || softmax(z_s / T)), or T² times the mean squared difference of both
    softmaxes. D sends gradient to the student and, unless the target is detached, to the adapter. The gradient moves
    the adapted logits towards the student's.

    The variant `released-vision` has another distance, `swapped_kd_loss`, in which the student never sees the adapter.
    See `trainables.spec.methods.pesf_variants` for all variants, with sources and our deviations.

    If `gap_control` imposes a gap, gap_weight · (gap - gap_target)² is added. The gap is mean(sharpness(z_a) -
    sharpness(z_s)) over the batch, at temperature 1. This penalty sends gradient to the adapter alone, even if the
    target is detached: the adapter keeps the sharpness gap, and the student is not pushed towards the gap.

    Args:
        outputs: step outputs with `student_logits` and `adapted_logits`, both (B, C).
        labels: (B,) int64.
        temperature: T, softens both sides of the distance.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the distance.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy.
        detach_adapter_target: stop the distance's gradient before the adapter.
        pesf_variant: source of the objective: the paper, or the authors' code for images or text.
        distance: `kl` as in the paper's vision experiments; `mse` of probabilities as in the paper's language
            experiments.
        gap_control: which gap to impose. `paper` uses the paper's gap, which an adapter can also meet by adding a
            constant to all logits. `centred` first subtracts each row's mean logit, so a constant has no effect. `none`
            and `placebo` impose nothing; for `placebo` the adapter itself adds a constant, see `TeacherAdapter`.
        gap_target: target gap in nats, if a gap is imposed.
        gap_weight: weight of the penalty, if a gap is imposed.

    Returns:
        Loss parts `total`, `ce`, `kd` and `adapter`. If a gap is imposed, also `gap`, the unweighted penalty.

    Source:
        Rao et al., "Parameter-Efficient and Student-Friendly Knowledge Distillation" (2022). The separate weight of the
        adapter's cross-entropy, the detached target and the imposed gap are ours.
    """
    target = outputs.target_logits(detached=detach_adapter_target)
    if pesf_variant == "released-vision":
        assert outputs.teacher_logits is not None
        kd = swapped_kd_loss(outputs.student_logits, outputs.teacher_logits, target, labels, temperature=temperature)
    else:
        distance_of = kd_loss if distance == "kl" else probability_mse_loss
        kd = distance_of(outputs.student_logits, target, temperature=temperature)
    parts = weighted_sum(
        outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight, adapter_ce_weight=adapter_ce_weight
    )
    if gap_control not in ("paper", "centred"):
        return parts
    student = outputs.student_logits.detach()
    gap = sharpness_gap(outputs.target_logits(), student, centred=gap_control == "centred")
    penalty = (gap - gap_target) ** 2
    return parts._replace(total=parts.total + gap_weight * penalty, gap=penalty)


def closed_form(
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
    pesf_variant: PesfVariant,
    distance: Distance,
    gap_control: GapControl,
    gap_target: float,  # noqa: ARG001 - the formulas leave the gap alone
    gap_weight: float,  # noqa: ARG001
) -> ClosedForm | None:
    """Return the formulas for losses and gradients; None if autograd has to compute the gradients.

    Autograd is needed for the released variants, for the squared distance and for every gap control except `none`. All
    trials of a pack share these fields (`SHARED_FIELDS`), so they all use the same path.
    """
    if pesf_variant != "paper" or distance != "kl" or gap_control != "none":
        return None
    return ClosedForm(
        temperature=temperature,
        ce_weight=ce_weight,
        kd_weight=kd_weight,
        adapter_ce_weight=adapter_ce_weight,
        detach_adapter_target=detach_adapter_target,
    )


METHOD = Method(METHOD_SPECS["pesf_kd"], pesf_kd_losses, closed_form=closed_form)
