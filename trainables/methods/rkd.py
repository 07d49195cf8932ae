"""Relational distillation: distances between samples, and angles among three, in the penultimate feature."""

from typing import Final

from torch import Tensor
from torch.nn.functional import normalize, smooth_l1_loss

from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS

_SMALL: Final = 1e-12


def rkd_distance_loss(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    """Huber loss between the two tables of distances, each divided by its mean over different samples.

    Args:
        student_feature: (B, D of the student).
        teacher_feature: (B, D of the teacher).

    Returns:
        Scalar, mean over the B² pairs, those of a sample with itself included; 0 for similar figures, and for B = 1.

    Source:
        Park et al., "Relational Knowledge Distillation" (2019). The mean distance is over the pairs
        of different samples, where its code leaves out pairs at distance 0.
    """
    return smooth_l1_loss(_relative_distances(student_feature), _relative_distances(teacher_feature))


def rkd_angle_loss(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    """Huber loss between the cosines of the angles at j of all triples i, j, k.

    Args:
        student_feature: (B, D of the student).
        teacher_feature: (B, D of the teacher).

    Returns:
        Scalar, mean over the B³ triples, degenerate ones (cosine 0) included; 0 for similar figures.

    Source:
        Park et al., "Relational Knowledge Distillation" (2019).
    """
    return smooth_l1_loss(_cosines(student_feature), _cosines(teacher_feature))


def _differences(feature: Tensor) -> Tensor:
    """(B, B, D): row j, column i is x_i - x_j."""
    return feature[None, :, :] - feature[:, None, :]


def _relative_distances(feature: Tensor) -> Tensor:
    # The small number keeps the root's gradient finite where two samples coincide, as each does with itself.
    distances = (_differences(feature).square().sum(dim=2) + _SMALL).sqrt()
    pairs = max(len(feature) * (len(feature) - 1), 1)
    apart = distances - distances.diagonal().diag()
    return apart / (apart.sum() / pairs + _SMALL)


def _cosines(feature: Tensor) -> Tensor:
    direction = normalize(_differences(feature), dim=2)
    return direction @ direction.mT


def rkd_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    ce_weight: float,
    kd_weight: float,
    rkd_distance_weight: float,
    rkd_angle_weight: float,
) -> LossParts:
    """ce_weight · CE(z_s, y) + kd_weight · (rkd_distance_weight · distances + rkd_angle_weight · angles).

    Args:
        outputs: needs `student_logits` (B, C), `student_feature` and `teacher_feature`.
        labels: (B,) int64.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of both relations together.
        rkd_distance_weight: weight of the pairs' loss.
        rkd_angle_weight: weight of the triples' loss.

    Returns:
        The parts `total`, `ce` and `kd`.

    Source:
        Park et al., "Relational Knowledge Distillation" (2019); memory grows with B³: 1 MB a table for 64 samples.
    """
    assert outputs.teacher_feature is not None
    distances = rkd_distance_loss(outputs.student_feature, outputs.teacher_feature)
    angles = rkd_angle_loss(outputs.student_feature, outputs.teacher_feature)
    kd = rkd_distance_weight * distances + rkd_angle_weight * angles
    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["rkd"], rkd_losses)
