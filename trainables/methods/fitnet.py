"""Hints: a regressor beside the student tells the teacher's map halfway from the student's."""

from torch import Tensor, nn
from torch.nn.functional import mse_loss, relu

from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.maps import MapPair, at_hint, hint_pair
from trainables.methods.method import MapShape, Method, PartsSetting, weighted_sum
from trainables.spec.methods import METHOD_SPECS


class HintRegressor(nn.Module):
    """Convolution - batch norm - ReLU, from the student's map to the teacher's.

    Where one map is r times the other in height and width the convolution changes the size: of stride r and 2r - 1
    pixels a side where the student's is larger, transposed where the teacher's is, of 1 × 1 where they are equal.
    Other maps are pooled to one size before a convolution of 1 × 1.

    Args:
        student: (C, H, W) of the student's map.
        teacher: of the teacher's.
    """

    def __init__(self, student: MapShape, teacher: MapShape) -> None:
        super().__init__()
        down, up = _times_larger(student, teacher), _times_larger(teacher, student)
        self.pools = not (down or up)
        self.conv: nn.Conv2d | nn.ConvTranspose2d
        # A bias would be lost in the batch norm.
        if up > 1:
            padding = up // 2
            kernel = up + 2 * padding
            self.conv = nn.ConvTranspose2d(student[0], teacher[0], kernel, stride=up, padding=padding, bias=False)
        else:
            stride = max(down, 1)
            self.conv = nn.Conv2d(student[0], teacher[0], 2 * stride - 1, stride=stride, padding=stride - 1, bias=False)
        # It is never evaluated, so that it needs no running statistics.
        self.bn = nn.BatchNorm2d(teacher[0], track_running_stats=False)

    def forward(self, pair: MapPair) -> MapPair:
        """What the student's map tells of the teacher's, and the teacher's, of one shape."""
        student, teacher = pair.at_one_size() if self.pools else pair
        return MapPair(relu(self.bn(self.conv(student))), teacher)


def _times_larger(one: MapShape, other: MapShape) -> int:
    """How often `other` fits into `one`, in height and width alike; 0 if it does not."""
    times = one[1] // other[1]
    return times if (one[1], one[2]) == (times * other[1], times * other[2]) else 0


def hint_regressor(setting: PartsSetting) -> HintRegressor:
    """The parts of the method."""
    return HintRegressor(at_hint(setting.student_maps), at_hint(setting.teacher_maps))


def fitnet_losses(outputs: StepOutputs, labels: Tensor, *, ce_weight: float, kd_weight: float) -> LossParts:
    """ce_weight · CE(z_s, y) + kd_weight · the mean squared error of the regressed hint.

    Args:
        outputs: needs `student_logits` (B, C), `student_maps`, `teacher_maps` and the regressor in `parts`.
        labels: (B,) int64.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the error, which is a mean over all numbers of the map; the published weight is 100.

    Returns:
        The parts `total`, `ce` and `kd`.

    Source:
        Romero et al., "FitNets: Hints for Thin Deep Nets" (2015), equation 3 without its half. As in CRD's comparison
        (Tian et al., 2020), whose weight goes with it, hints and labels teach together instead of in two stages, the
        hint is the map of the second stage, and the regressor ends in batch norm and ReLU. Ours: the regressor has no
        bias before its batch norm, and sizes other than equal, half and double are matched by its stride, too.
    """
    assert isinstance(outputs.parts, HintRegressor)
    kd = mse_loss(*outputs.parts(hint_pair(outputs)))
    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["fitnet"], fitnet_losses, parts=hint_regressor)
