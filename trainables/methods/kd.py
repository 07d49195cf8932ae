"""Knowledge distillation from the frozen teacher's softened logits."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from trainables.closed_form import ClosedForm
from trainables.losses import kd_loss
from trainables.methods.method import LossParts, Method, StepOutputs


def kd_losses(
    outputs: StepOutputs, labels: Tensor, *, temperature: float, ce_weight: float, kd_weight: float
) -> LossParts:
    """ce_weight · CE(z_s, y) + kd_weight · T² KL(softmax(z / T) || softmax(z_s / T)).

    Args:
        outputs: needs `student_logits` and `teacher_logits`, (B, C).
        labels: (B,) int64.
        temperature: softens both sides of the divergence.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence.

    Returns:
        The parts `total`, `ce` and `kd`.

    Source:
        Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015).
    """
    assert outputs.teacher_logits is not None
    ce = cross_entropy(outputs.student_logits, labels)
    kd = kd_loss(outputs.student_logits, outputs.teacher_logits, temperature=temperature)
    return LossParts(total=ce_weight * ce + kd_weight * kd, ce=ce, kd=kd)


METHOD = Method(name="kd", losses=kd_losses, needs_teacher=True, has_adapter=False, closed_form=ClosedForm)
