"""PESF-KD: the teacher stays frozen, and an adapter learns to make its soft labels student-friendly."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from trainables.closed_form import ClosedForm
from trainables.losses import kd_loss
from trainables.methods.method import LossParts, Method, StepOutputs


def pesf_kd_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
) -> LossParts:
    """Losses of student and adapter, minimised together.

    ce_weight · CE(z_s, y) + kd_weight · T² KL(softmax(z_a / T) || softmax(z_s / T))
    + adapter_ce_weight · CE(z_a, y), with z_a the adapted logits. The divergence sends gradient to the
    student and, unless the target is detached, to the adapter, which thereby moves towards the student.

    Args:
        outputs: needs `student_logits` and `adapted_logits`, (B, C).
        labels: (B,) int64.
        temperature: softens both sides of the divergence.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy.
        detach_adapter_target: the divergence's gradient does not reach the adapter.

    Returns:
        The parts `total`, `ce`, `kd` and `adapter`.

    Source:
        Rao et al., "Parameter-Efficient and Student-Friendly Knowledge Distillation" (2022). The separate
        weight of the adapter's cross-entropy and the detached target are ours.
    """
    assert outputs.adapted_logits is not None
    target = outputs.adapted_logits.detach() if detach_adapter_target else outputs.adapted_logits
    ce = cross_entropy(outputs.student_logits, labels)
    kd = kd_loss(outputs.student_logits, target, temperature=temperature)
    adapter = cross_entropy(outputs.adapted_logits, labels)
    total = ce_weight * ce + kd_weight * kd + adapter_ce_weight * adapter
    return LossParts(total=total, ce=ce, kd=kd, adapter=adapter)


METHOD = Method(name="pesf_kd", losses=pesf_kd_losses, needs_teacher=True, has_adapter=True, closed_form=ClosedForm)
