"""Cross-entropy alone: the control without a teacher."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method
from trainables.spec.methods import METHOD_SPECS


def ce_losses(outputs: StepOutputs, labels: Tensor) -> LossParts:
    """Compute CE(z_s, y), with weight 1, so the learning rate alone sets the step size.

    Args:
        outputs: step outputs with `student_logits` (B, C).
        labels: (B,) int64.

    Returns:
        Loss parts `total` and `ce`, which are equal.
    """
    ce = cross_entropy(outputs.student_logits, labels)
    return LossParts(total=ce, ce=ce)


METHOD = Method(METHOD_SPECS["ce"], ce_losses)
