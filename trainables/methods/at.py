"""Attention transfer: where in the image each stage of the student is active, as the teacher's stage is."""

import torch
from torch import Tensor
from torch.nn.functional import normalize

from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.maps import MapPair, stage_pairs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS


def attention(maps: Tensor) -> Tensor:
    """How active each position is: the mean of the channels' squares, as a vector of length 1.

    Args:
        maps: (B, C, H, W).

    Returns:
        (B, H · W); 0 for a sample whose map is 0.
    """
    return normalize(maps.square().mean(dim=1).flatten(1), dim=1)


def at_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Squared difference of two attentions, mean over samples and positions.

    Args:
        student_map: (B, C of the student, H, W).
        teacher_map: (B, C of the teacher, H', W'); the larger of the two is pooled to the smaller's size before.

    Returns:
        Scalar: 1 / (H · W) of the mean squared distance; 0 for maps that differ in scale and in the channels' order.

    Source:
        Zagoruyko and Komodakis, "Paying More Attention to Attention" (2017), activation-based, with squares. The paper
        takes the distance itself; its square, the mean over positions and the pooling are those of CRD's comparison
        (Tian et al., 2020), whose weight goes with them.
    """
    student, teacher = MapPair(student_map, teacher_map).at_one_size()
    return (attention(student) - attention(teacher)).square().mean()


def at_losses(outputs: StepOutputs, labels: Tensor, *, ce_weight: float, kd_weight: float) -> LossParts:
    """ce_weight · CE(z_s, y) + kd_weight · the sum of `at_loss` over the stages.

    Args:
        outputs: needs `student_logits` (B, C), `student_maps` and `teacher_maps`.
        labels: (B,) int64.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the sum; the published weight is 1,000.

    Returns:
        The parts `total`, `ce` and `kd`.

    Source:
        Zagoruyko and Komodakis, "Paying More Attention to Attention" (2017). Stages are matched in their order, the
        stems not; where one net has more stages than the other, the deepest of them are not matched.
    """
    kd = torch.stack([at_loss(*pair) for pair in stage_pairs(outputs)]).sum()
    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["at"], at_losses)
