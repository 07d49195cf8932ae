"""PESF-KD's ablation: the whole teacher goes on learning, as its adapter does otherwise."""

from torch import Tensor

from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method
from trainables.methods.pesf_kd import pesf_kd_losses
from trainables.spec.methods import METHOD_SPECS


def full_teacher_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
) -> LossParts:
    """PESF-KD's losses, the teacher's own logits z_t in the place of the adapted ones.

    ce_weight · CE(z_s, y) + kd_weight · T² KL(softmax(z_t / T) || softmax(z_s / T)) + adapter_ce_weight · CE(z_t, y),
    whose divergence sends gradient to the student and, unless the target is detached, to the teacher.

    Args:
        outputs: needs `student_logits` and, of the learning teacher, `adapted_logits`, (B, C).
        labels: (B,) int64.
        temperature: softens both sides of the divergence.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence.
        adapter_ce_weight: weight of the teacher's cross-entropy.
        detach_adapter_target: the divergence's gradient does not reach the teacher.

    Returns:
        The parts `total`, `ce`, `kd` and `adapter`, the last of the teacher.

    Source:
        Rao et al., "Parameter-Efficient and Student-Friendly Knowledge Distillation" (2022), where it stands for
        student-friendly training without parameter efficiency. The teacher begins with the weights that it was trained
        to, and learns with its batch statistics, by the adapter's rate, momentum, decay and schedule: what differs from
        PESF-KD is only who learns.
    """
    return pesf_kd_losses(
        outputs,
        labels,
        temperature=temperature,
        ce_weight=ce_weight,
        kd_weight=kd_weight,
        adapter_ce_weight=adapter_ce_weight,
        detach_adapter_target=detach_adapter_target,
        distance="kl",
        gap_control="none",
        gap_target=0.0,
        gap_weight=0.0,
    )


METHOD = Method(METHOD_SPECS["full_teacher"], full_teacher_losses)
