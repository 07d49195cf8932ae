"""MobileNetV2 at half width with expansion 6 for 32 × 32 images.

Parameter names match the checkpoints of RepDistiller (there `mobile_half`) and mdistiller: `conv1`, `blocks`, `conv2`,
`classifier.0`.
"""

from typing import cast

from torch import Tensor, nn

from trainables.models.interface import DistillationModel, StageOutputs
from trainables.models.layers import global_average, initialise_he

# (expansion, output channels, blocks, stride of the first block)
STAGES = (
    (1, 8, 1, 1),
    (6, 12, 2, 1),
    (6, 16, 3, 2),
    (6, 32, 4, 2),
    (6, 48, 3, 1),
    (6, 80, 3, 2),
    (6, 160, 1, 1),
)
STEM_CHANNELS = 16
FEATURE_DIM = 1280
# Stages (from 0) matched by the literature's feature methods.
MATCHED_STAGES = (1, 2, 4, 6)


def convolution(
    in_channels: int, out_channels: int, kernel: int, *, stride: int = 1, groups: int = 1
) -> list[nn.Module]:
    """Build a convolution with "same" padding, followed by a batch norm."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, stride=stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(out_channels)]


class InvertedResidual(nn.Module):
    """Inverted residual: widen, depthwise convolution, narrow without a ReLU; a shortcut if the shape stays."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_channels * expansion
        self.has_shortcut = stride == 1 and in_channels == out_channels
        self.conv = nn.Sequential(
            *convolution(in_channels, hidden, 1),
            nn.ReLU(inplace=True),
            *convolution(hidden, hidden, 3, stride=stride, groups=hidden),
            nn.ReLU(inplace=True),
            *convolution(hidden, out_channels, 1),
        )

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride), without a final ReLU."""
        narrowed: Tensor = self.conv(maps)
        return narrowed.add_(maps) if self.has_shortcut else narrowed


class MobileNetV2(DistillationModel):
    """Stem of stride 2, seven stages of inverted residuals, 1 × 1 convolution, global average and `classifier`.

    Stages end in linear bottlenecks, so `preactivations` equals `maps`.

    Args:
        num_classes: number of classes, C.
        in_channels: image channels.

    Source: Sandler et al. 2018 with all widths but the last halved, and the second stage's stride 1 instead of 2, as in
    the CIFAR distillation literature.
    """

    def __init__(self, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Sequential(*convolution(in_channels, STEM_CHANNELS, 3, stride=2), nn.ReLU(inplace=True))
        self.blocks = nn.ModuleList()
        channels = STEM_CHANNELS
        for expansion, out_channels, blocks, stride in STAGES:
            first = InvertedResidual(channels, out_channels, stride, expansion)
            later = (InvertedResidual(out_channels, out_channels, 1, expansion) for _ in range(blocks - 1))
            self.blocks.append(nn.Sequential(first, *later))
            channels = out_channels
        self.conv2 = nn.Sequential(*convolution(channels, FEATURE_DIM, 1), nn.ReLU(inplace=True))
        self.classifier = nn.Sequential(nn.Linear(FEATURE_DIM, num_classes))
        initialise_he(self, linear_std=0.01)

    @property
    def head(self) -> nn.Linear:
        """Last linear layer."""
        return cast("nn.Linear", self.classifier[0])

    def stages(self, images: Tensor) -> StageOutputs:
        """Return the maps of the stem and stages 2, 3, 5 and 7, and the feature (B, 1280)."""
        current = self.conv1(images)
        maps = [current]
        for index, stage in enumerate(self.blocks):
            current = stage(current)
            if index in MATCHED_STAGES:
                maps.append(current)
        return StageOutputs(tuple(maps), tuple(maps), global_average(self.conv2(current)))

    def resume(self, index: int, maps: Tensor) -> Tensor:
        """Compute the feature from a stem map (index 0) or a matched stage's map."""
        for stage in self.blocks[MATCHED_STAGES[index - 1] + 1 if index else 0 :]:
            maps = stage(maps)
        return global_average(self.conv2(maps))
