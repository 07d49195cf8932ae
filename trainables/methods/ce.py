"""Cross-entropy alone: the control that shows what a student learns without a teacher."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method
from trainables.spec.methods import METHOD_SPECS


def ce_losses(outputs: StepOutputs, labels: Tensor) -> LossParts:
    """CE(z_s, y); its weight is 1, so that the learning rate alone sets the size of a step.

    Args:
        outputs: needs `student_logits` (B, C).
        labels: (B,) int64.

    Returns:
        The parts `total` and `ce`, which are the same.
    """
    ce = cross_entropy(outputs.student_logits, labels)
    return LossParts(total=ce, ce=ce)


METHOD = Method(METHOD_SPECS["ce"], ce_losses)
