"""Knowledge distillation from the frozen teacher's softened logits."""

from torch import Tensor

from trainables.losses.logits import kd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS
from trainables.steps.closed_form import ClosedForm


def kd_losses(
    outputs: StepOutputs, labels: Tensor, *, temperature: float, ce_weight: float, kd_weight: float
) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · T² KL(softmax(z / T) || softmax(z_s / T)).

    Args:
        outputs: step outputs with `student_logits` and `teacher_logits`, both (B, C).
        labels: (B,) int64.
        temperature: T, softens both sides of the divergence.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence.

    Returns:
        Loss parts `total`, `ce` and `kd`.

    Source:
        Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015).
    """
    kd = kd_loss(outputs.student_logits, outputs.target_logits(), temperature=temperature)
    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["kd"], kd_losses, closed_form=ClosedForm)
