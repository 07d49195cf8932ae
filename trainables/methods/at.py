"""Attention transfer: each student stage learns to be active at the same image positions as the teacher's stage."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.maps import MapPair, stage_pairs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS


def attention(maps: Tensor) -> Tensor:
    """Compute the activity of each position: squares averaged over channels, scaled to a vector of length 1.

    Args:
        maps: (B, C, H, W).

    Returns:
        (B, H · W); a sample with an all-zero map has a zero row.
    """
    return normalize(maps.square().mean(dim=1).flatten(1), dim=1)


def at_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Compute the mean squared difference of both attentions over samples and positions.

    Args:
        student_map: (B, C of the student, H, W).
        teacher_map: (B, C of the teacher, H', W'). Average pooling first reduces the larger map to the smaller size.

    Returns:
        Scalar: the squared distance, averaged over samples and divided by H · W. Zero if the maps differ only by scale
        and by channel order.

    Source:
        Zagoruyko and Komodakis, "Paying More Attention to Attention" (2017), activation-based attention with squares.
        The paper uses the distance without the square. The square, the mean over positions and the pooling come from
        CRD's comparison (Tian et al., 2020), as does the published weight.
    """
    student, teacher = MapPair(student_map, teacher_map).at_one_size()
    return (attention(student) - attention(teacher)).square().mean()


def at_losses(outputs: StepOutputs, labels: Tensor, *, ce_weight: float, kd_weight: float) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · the sum of `at_loss` over the stages.

    Args:
        outputs: step outputs with `student_logits` (B, C), `student_maps` and `teacher_maps`.
        labels: (B,) int64.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the sum; the published weight is 1,000.

    Returns:
        Loss parts `total`, `ce` and `kd`.

    Source:
        Zagoruyko and Komodakis, "Paying More Attention to Attention" (2017). Stages are matched in order, without the
        stems. If one network has more stages, the deepest extra stages are not matched.
    """
    kd = torch.stack([at_loss(*pair) for pair in stage_pairs(outputs)]).sum()
    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["at"], at_losses)
