"""Ablation of PESF-KD: train the whole teacher instead of an adapter."""

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
    """Compute PESF-KD's losses with the trained teacher's logits z_t in place of the adapted logits.

    The loss is ce_weight · CE(z_s, y) + kd_weight · T² KL(softmax(z_t / T) || softmax(z_s / T)) + adapter_ce_weight ·
    CE(z_t, y). The divergence sends gradient to the student and, unless the target is detached, to the teacher.

    Args:
        outputs: step outputs with `student_logits` and `adapted_logits`, both (B, C). `adapted_logits` holds the
            trained teacher's logits.
        labels: (B,) int64.
        temperature: T, softens both sides of the divergence.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence.
        adapter_ce_weight: weight of the teacher's cross-entropy.
        detach_adapter_target: stop the divergence's gradient before the teacher.

    Returns:
        Loss parts `total`, `ce`, `kd` and `adapter`; `adapter` is the teacher's cross-entropy.

    Source:
        Rao et al., "Parameter-Efficient and Student-Friendly Knowledge Distillation" (2022), as the case of
        student-friendly training without parameter efficiency. Training continues from the teacher's trained weights,
        with BatchNorm on batch statistics. Learning rate, momentum, weight decay and schedule are the adapter's, so the
        trained module is the only difference to PESF-KD.
    """
    return pesf_kd_losses(
        outputs,
        labels,
        temperature=temperature,
        ce_weight=ce_weight,
        kd_weight=kd_weight,
        adapter_ce_weight=adapter_ce_weight,
        detach_adapter_target=detach_adapter_target,
        pesf_variant="paper",
        distance="kl",
        gap_control="none",
        gap_target=0.0,
        gap_weight=0.0,
    )


METHOD = Method(METHOD_SPECS["full_teacher"], full_teacher_losses)
