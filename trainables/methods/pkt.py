"""Probabilistic knowledge transfer: how likely each sample of a batch is to be another's neighbour, by the features."""

from torch import Tensor
from torch.nn.functional import normalize

from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS

_SMALL = 1e-7


def pkt_loss(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    """Divergence between the teacher's and the student's neighbourhoods, mean over all pairs of p_t log(p_t / p_s).

    With k the cosine of two samples' features, moved to [0, 1], p is k divided by its sum over the row, a sample's
    own entry included.

    Args:
        student_feature: (B, D of the student).
        teacher_feature: (B, D of the teacher); the two widths need not agree.

    Returns:
        Scalar: the mean over the B² pairs, so 1 / B of the mean over the samples; 0 where both see the same cosines.

    Source:
        Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer" (2018), with the
        cosine kernel. The mean over pairs is that of CRD's comparison (Tian et al., 2020), whose weight goes with it.
    """
    student, teacher = _neighbourhood(student_feature), _neighbourhood(teacher_feature)
    return (teacher * ((teacher + _SMALL) / (student + _SMALL)).log()).mean()


def _neighbourhood(feature: Tensor) -> Tensor:
    direction = normalize(feature, dim=1, eps=_SMALL)
    kernel = (direction @ direction.t() + 1) / 2
    return kernel / kernel.sum(dim=1, keepdim=True)


def pkt_losses(outputs: StepOutputs, labels: Tensor, *, ce_weight: float, kd_weight: float) -> LossParts:
    """ce_weight · CE(z_s, y) + kd_weight · the divergence of `pkt_loss`.

    Args:
        outputs: needs `student_logits` (B, C), `student_feature` and `teacher_feature`.
        labels: (B,) int64.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence, which is small: the published weight is 30,000.

    Returns:
        The parts `total`, `ce` and `kd`.

    Source:
        Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer" (2018).
    """
    assert outputs.teacher_feature is not None
    kd = pkt_loss(outputs.student_feature, outputs.teacher_feature)
    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["pkt"], pkt_losses)
