"""Variational information distillation: the student's maps say as much as they can of the teacher's.

A regressor for each stage gives the mean of a gaussian from the student's map, and a parameter for each channel its
variance. How likely the teacher's map is under it bounds the information that both maps share from below.
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
    """A gaussian of each number of the teacher's map, given the student's map at that position.

    Args:
        student_channels: of the student's map.
        teacher_channels: of the teacher's.
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
        """(C of the teacher,), never 0."""
        return softplus(self.scale) + _LEAST_VARIANCE

    def forward(self, pair: MapPair) -> Tensor:
        """Negative log-likelihood of the teacher's map without log(2π) / 2, mean over all its numbers, in nats."""
        student, teacher = pair.at_one_size()
        variance = self.variance[:, None, None]
        return ((teacher - self.mean(student)).square() / variance + variance.log()).mean() / 2


def variational_regressors(setting: PartsSetting) -> nn.ModuleList:
    """The parts of the method: a regressor for each pair of stages."""
    pairs = in_pairs(setting.student_maps, setting.teacher_maps)
    return nn.ModuleList(VariationalRegressor(student[0], teacher[0]) for student, teacher in pairs)


def vid_losses(outputs: StepOutputs, labels: Tensor, *, ce_weight: float, kd_weight: float) -> LossParts:
    """ce_weight · CE(z_s, y) + kd_weight · the sum over the stages of how unlikely the teacher's maps are.

    Args:
        outputs: needs `student_logits` (B, C), `student_maps`, `teacher_maps` and the regressors in `parts`.
        labels: (B,) int64.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the sum; the published weight is 1.

    Returns:
        The parts `total`, `ce` and `kd`, which falls below 0 where the variances do well below 1.

    Source:
        Ahn et al., "Variational Information Distillation for Knowledge Transfer" (2019), equations 5 and 6. Regressors
        of three convolutions of 1 × 1 without bias, a mean over the numbers of a map, the larger map pooled to the
        smaller's size, and no pair for the logits are of CRD's comparison (Tian et al., 2020), whose weight goes with
        them. Stages are matched in their order, the stems not, and what one net has more of is left out.
    """
    regressors = cast("nn.ModuleList", outputs.parts)
    losses = [regressor(pair) for regressor, pair in zip(regressors, stage_pairs(outputs), strict=True)]
    return weighted_sum(outputs, labels, torch.stack(losses).sum(), ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["vid"], vid_losses, parts=variational_regressors)
