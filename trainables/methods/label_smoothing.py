"""Cross-entropy with smoothed labels: the control for soft targets without a teacher."""

from torch import Tensor
from torch.nn.functional import cross_entropy

from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method
from trainables.spec.methods import METHOD_SPECS


def label_smoothing_losses(outputs: StepOutputs, labels: Tensor, *, label_smoothing: float) -> LossParts:
    """Compute CE(z_s, q) with q = (1 - label_smoothing) · onehot(y) + label_smoothing / C.

    The weight is 1, as for the method `ce`.

    Args:
        outputs: step outputs with `student_logits` (B, C).
        labels: (B,) int64.
        label_smoothing: probability mass spread evenly over all classes, including the label's class.

    Returns:
        Loss parts `total` and `ce`, which are equal; both include the smoothing.

    Source:
        Szegedy et al., "Rethinking the Inception Architecture for Computer Vision" (2016), section 7.
    """
    ce = cross_entropy(outputs.student_logits, labels, label_smoothing=label_smoothing)
    return LossParts(total=ce, ce=ce)


METHOD = Method(METHOD_SPECS["label_smoothing"], label_smoothing_losses)
