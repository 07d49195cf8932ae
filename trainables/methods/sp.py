"""Similarity preserving: match the similarities between the samples of a batch, computed from the last stage."""

from torch import Tensor
from torch.nn.functional import normalize

from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.maps import last_pair
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS


def similarities(maps: Tensor) -> Tensor:
    """Compute dot products between all pairs of samples, with each row scaled to length 1.

    Args:
        maps: (B, ...), samples of any shape.

    Returns:
        (B, B); a sample with an all-zero map has a zero row.
    """
    flat = maps.flatten(1)
    return normalize(flat @ flat.t(), dim=1)


def sp_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Compute the mean squared difference of both similarity matrices over the B² pairs.

    Args:
        student_map: (B, ...).
        teacher_map: (B, ...); channels and positions may differ from the student's.

    Returns:
        Scalar. Zero if the maps differ only by an orthogonal transformation and by scale; also zero for B = 1.

    Source:
        Tung and Mori, "Similarity-Preserving Knowledge Distillation" (2019), equations 1 to 4.
    """
    return (similarities(student_map) - similarities(teacher_map)).square().mean()


def sp_losses(outputs: StepOutputs, labels: Tensor, *, ce_weight: float, kd_weight: float) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · `sp_loss` of the last stages.

    Args:
        outputs: step outputs with `student_logits` (B, C), `student_maps` and `teacher_maps`.
        labels: (B,) int64.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of `sp_loss`; the published weight is 3,000.

    Returns:
        Loss parts `total`, `ce` and `kd`.

    Source:
        Tung and Mori, "Similarity-Preserving Knowledge Distillation" (2019). The paper leaves the choice of stages
        open. As in CRD's comparison (Tian et al., 2020), only the last stage is matched, before global average pooling.
    """
    kd = sp_loss(*last_pair(outputs))
    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["sp"], sp_losses)
