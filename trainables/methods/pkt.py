"""Probabilistic knowledge transfer: match the probability that two samples in a batch are neighbours."""

from torch import Tensor
from torch.nn.functional import normalize

from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS

_SMALL = 1e-7


def pkt_loss(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    """Compute the divergence between teacher and student neighbourhoods, the mean over all pairs of p_t log(p_t / p_s).

    Let k be the cosine similarity of two samples' features, mapped to [0, 1]. Then p is k divided by the sum over the
    row, including the sample's own entry.

    Args:
        student_feature: (B, D of the student).
        teacher_feature: (B, D of the teacher); D may differ from the student's.

    Returns:
        Scalar, the mean over the B² pairs: 1 / B times the mean divergence of a sample. Zero if both have the same
        cosines.

    Source:
        Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer" (2018), with the
        cosine kernel. The mean over pairs comes from CRD's comparison (Tian et al., 2020), as does the published
        weight.
    """
    student, teacher = _neighbourhood(student_feature), _neighbourhood(teacher_feature)
    return (teacher * ((teacher + _SMALL) / (student + _SMALL)).log()).mean()


def _neighbourhood(feature: Tensor) -> Tensor:
    direction = normalize(feature, dim=1, eps=_SMALL)
    kernel = (direction @ direction.t() + 1) / 2
    return kernel / kernel.sum(dim=1, keepdim=True)


def pkt_losses(outputs: StepOutputs, labels: Tensor, *, ce_weight: float, kd_weight: float) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · `pkt_loss` of the features.

    Args:
        outputs: step outputs with `student_logits` (B, C), `student_feature` and `teacher_feature`.
        labels: (B,) int64.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence. The divergence is small, so the published weight is 30,000.

    Returns:
        Loss parts `total`, `ce` and `kd`.

    Source:
        Passalis and Tefas, "Learning Deep Representations with Probabilistic Knowledge Transfer" (2018).
    """
    assert outputs.teacher_feature is not None
    kd = pkt_loss(outputs.student_feature, outputs.teacher_feature)
    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["pkt"], pkt_losses)
