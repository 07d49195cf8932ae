"""Hints: a regressor predicts the teacher's middle map from the student's middle map."""

from torch import Tensor, nn
from torch.nn.functional import mse_loss, relu

from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.maps import MapPair, at_hint, hint_pair
from trainables.methods.method import MapShape, Method, PartsSetting, weighted_sum
from trainables.spec.methods import METHOD_SPECS


class HintRegressor(nn.Module):
    """Convolution, batch norm and ReLU that map the student's map to the teacher's shape.

    If one map is r times larger than the other in height and width, the convolution changes the size. For a larger
    student map, the convolution has stride r and a kernel of 2r - 1 pixels a side. For a larger teacher map, the
    convolution is transposed. For equal sizes, the convolution is 1 × 1. All other sizes are pooled to one size before
    a 1 × 1 convolution.

    Args:
        student: (C, H, W) of the student's map.
        teacher: (C, H, W) of the teacher's map.
    """

    def __init__(self, student: MapShape, teacher: MapShape) -> None:
        super().__init__()
        down, up = _times_larger(student, teacher), _times_larger(teacher, student)
        self.pools = not (down or up)
        self.conv: nn.Conv2d | nn.ConvTranspose2d
        # Batch norm cancels a bias.
        if up > 1:
            padding = up // 2
            kernel = up + 2 * padding
            self.conv = nn.ConvTranspose2d(student[0], teacher[0], kernel, stride=up, padding=padding, bias=False)
        else:
            stride = max(down, 1)
            self.conv = nn.Conv2d(student[0], teacher[0], 2 * stride - 1, stride=stride, padding=stride - 1, bias=False)
        # The regressor is never used in evaluation, so it needs no running statistics.
        self.bn = nn.BatchNorm2d(teacher[0], track_running_stats=False)

    def forward(self, pair: MapPair) -> MapPair:
        """Return the predicted and the actual teacher map, both of one shape."""
        student, teacher = pair.at_one_size() if self.pools else pair
        return MapPair(relu(self.bn(self.conv(student))), teacher)


def _times_larger(one: MapShape, other: MapShape) -> int:
    """Return how many times `other` fits into `one` in both height and width; 0 if it does not fit exactly."""
    times = one[1] // other[1]
    return times if (one[1], one[2]) == (times * other[1], times * other[2]) else 0


def hint_regressor(setting: PartsSetting) -> HintRegressor:
    """Build the method's regressor."""
    return HintRegressor(at_hint(setting.student_maps), at_hint(setting.teacher_maps))


def fitnet_losses(outputs: StepOutputs, labels: Tensor, *, ce_weight: float, kd_weight: float) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · the mean squared error of the predicted hint.

    Args:
        outputs: step outputs with `student_logits` (B, C), `student_maps`, `teacher_maps` and the regressor in `parts`.
        labels: (B,) int64.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the error, a mean over all elements of the map; the published weight is 100.

    Returns:
        Loss parts `total`, `ce` and `kd`.

    Source:
        Romero et al., "FitNets: Hints for Thin Deep Nets" (2015), equation 3 without the factor 1/2. As in CRD's
        comparison (Tian et al., 2020), hints and labels are used together instead of in two stages, the hint is the map
        of the second stage, and the regressor ends in batch norm and ReLU. The published weight is also from there.
        Ours: the regressor has no bias before batch norm, and the stride also matches sizes other than equal, half and
        double.
    """
    assert isinstance(outputs.parts, HintRegressor)
    kd = mse_loss(*outputs.parts(hint_pair(outputs)))
    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["fitnet"], fitnet_losses, parts=hint_regressor)
