"""Variational information distillation: maximise a lower bound on the information shared by student and teacher maps.

For each stage, a regressor predicts the mean of a Gaussian from the student's map, and one parameter per channel sets
the variance. The likelihood of the teacher's map under this Gaussian gives the lower bound.
"""

import math
from typing import Final, cast

import torch
from torch import Tensor, nn
from torch.nn.functional import softplus

from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.maps import MapPair, in_pairs, stage_pairs
from trainables.methods.method import Method, PartsSetting, weighted_sum
from trainables.spec.methods import METHOD_SPECS

_FIRST_VARIANCE: Final = 5.0
_LEAST_VARIANCE: Final = 1e-5


class VariationalRegressor(nn.Module):
    """Gaussian over each element of the teacher's map, given the student's map at the same position.

    Args:
        student_channels: channels of the student's map.
        teacher_channels: channels of the teacher's map.
    """

    def __init__(self, student_channels: int, teacher_channels: int) -> None:
        super().__init__()
        self.mean = nn.Sequential(
            nn.Conv2d(student_channels, teacher_channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False),
            nn.ReLU(),
            nn.Conv2d(teacher_channels, teacher_channels, 1, bias=False),
        )
        scale = math.log(math.expm1(_FIRST_VARIANCE - _LEAST_VARIANCE))
        self.scale = nn.Parameter(torch.full((teacher_channels,), scale))

    @property
    def variance(self) -> Tensor:
        """Variance of each teacher channel, (C of the teacher,), always positive."""
        return softplus(self.scale) + _LEAST_VARIANCE

    def forward(self, pair: MapPair) -> Tensor:
        """Compute the teacher map's mean negative log-likelihood per element, in nats, without log(2π) / 2."""
        student, teacher = pair.at_one_size()
        variance = self.variance[:, None, None]
        return ((teacher - self.mean(student)).square() / variance + variance.log()).mean() / 2


def variational_regressors(setting: PartsSetting) -> nn.ModuleList:
    """Build the method's modules, one regressor per pair of stages."""
    pairs = in_pairs(setting.student_maps, setting.teacher_maps)
    return nn.ModuleList(VariationalRegressor(student[0], teacher[0]) for student, teacher in pairs)


def vid_losses(outputs: StepOutputs, labels: Tensor, *, ce_weight: float, kd_weight: float) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · the sum of the regressors' losses over the stages.

    Each regressor's loss is the negative log-likelihood of the teacher's map.

    Args:
        outputs: step outputs with `student_logits` (B, C), `student_maps`, `teacher_maps` and the regressors in
            `parts`.
        labels: (B,) int64.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the sum; the published weight is 1.

    Returns:
        Loss parts `total`, `ce` and `kd`. `kd` becomes negative if the variances fall well below 1.

    Source:
        Ahn et al., "Variational Information Distillation for Knowledge Transfer" (2019), equations 5 and 6. As in CRD's
        comparison (Tian et al., 2020), the regressors are three 1 × 1 convolutions without bias, the loss is a mean
        over the map's elements, the larger map is pooled to the smaller size, and the logits have no regressor. The
        published weight is also from there. Stages are matched in order, without the stems; extra stages of the deeper
        network are left out.
    """
    regressors = cast("nn.ModuleList", outputs.parts)
    losses = [regressor(pair) for regressor, pair in zip(regressors, stage_pairs(outputs), strict=True)]
    return weighted_sum(outputs, labels, torch.stack(losses).sum(), ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["vid"], vid_losses, parts=variational_regressors)
