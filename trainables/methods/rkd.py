"""Relational distillation: match pairwise distances and triplet angles of the penultimate features."""

from typing import Final

from torch import Tensor
from torch.nn.functional import normalize, smooth_l1_loss

from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS

_SMALL: Final = 1e-12


def rkd_distance_loss(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    """Compute the Huber loss between both distance matrices.

    Each matrix is first divided by the mean distance between different samples.

    Args:
        student_feature: (B, D of the student).
        teacher_feature: (B, D of the teacher).

    Returns:
        Scalar, the mean over all B² pairs, including each sample with itself. Zero for geometrically similar features,
        and for B = 1.

    Source:
        Park et al., "Relational Knowledge Distillation" (2019). The mean distance here covers all pairs of different
        samples; the paper's code leaves out pairs at distance 0.
    """
    return smooth_l1_loss(_relative_distances(student_feature), _relative_distances(teacher_feature))


def rkd_angle_loss(student_feature: Tensor, teacher_feature: Tensor) -> Tensor:
    """Compute the Huber loss between the cosines of the angles at j, for all triples i, j, k.

    Args:
        student_feature: (B, D of the student).
        teacher_feature: (B, D of the teacher).

    Returns:
        Scalar, the mean over all B³ triples; degenerate triples have cosine 0. Zero for geometrically similar features.

    Source:
        Park et al., "Relational Knowledge Distillation" (2019).
    """
    return smooth_l1_loss(_cosines(student_feature), _cosines(teacher_feature))


def _differences(feature: Tensor) -> Tensor:
    """Compute pairwise differences (B, B, D); row j, column i is x_i - x_j."""
    return feature[None, :, :] - feature[:, None, :]


def _relative_distances(feature: Tensor) -> Tensor:
    # The epsilon keeps the square root's gradient finite for identical samples, such as a sample and itself.
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
    """Compute ce_weight · CE(z_s, y) + kd_weight · (rkd_distance_weight · distances + rkd_angle_weight · angles).

    Args:
        outputs: step outputs with `student_logits` (B, C), `student_feature` and `teacher_feature`.
        labels: (B,) int64.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of both relations together.
        rkd_distance_weight: weight of the distance loss.
        rkd_angle_weight: weight of the angle loss.

    Returns:
        Loss parts `total`, `ce` and `kd`.

    Source:
        Park et al., "Relational Knowledge Distillation" (2019). Memory grows with B³: a cosine table takes 1 MB for 64
        samples.
    """
    assert outputs.teacher_feature is not None
    distances = rkd_distance_loss(outputs.student_feature, outputs.teacher_feature)
    angles = rkd_angle_loss(outputs.student_feature, outputs.teacher_feature)
    kd = rkd_distance_weight * distances + rkd_angle_weight * angles
    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["rkd"], rkd_losses)
