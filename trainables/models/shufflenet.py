"""ShuffleNet V1 (3 groups) and V2 (width 1) for 32 × 32 images: a 1 × 1 stem keeps full resolution.

Parameter names match RepDistiller's and mdistiller's checkpoints: `conv1`, `bn1`, `layer1..3`, for V2 also `conv2`,
`bn2`, and `linear`.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.models.interface import DistillationModel, StageOutputs
from trainables.models.layers import activated_stages, channel_shuffle, global_average

STEM_CHANNELS = 24
V1_GROUPS = 3
# (channels, blocks); the first block of a stage halves the resolution
V1_STAGES = ((240, 4), (480, 8), (960, 4))
V2_STAGES = ((116, 4), (232, 8), (464, 4))
V2_FEATURE_DIM = 1024


def depthwise(channels: int, stride: int) -> nn.Conv2d:
    """Build a depthwise 3 × 3 convolution."""
    return nn.Conv2d(channels, channels, 3, stride=stride, padding=1, groups=channels, bias=False)


class GroupedBlock(nn.Module):
    """ShuffleNet V1 unit; returns pre-activations.

    A unit with half the resolution concatenates the averaged input instead of adding it. `out_channels` includes the
    input's channels.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        own_channels = out_channels - in_channels if stride == 2 else out_channels
        middle = own_channels // 4
        self.stride = stride
        # As in the paper, the convolution right after the stem is not grouped: 24 channels are too few to split.
        self.groups = 1 if in_channels == STEM_CHANNELS else V1_GROUPS
        self.conv1 = nn.Conv2d(in_channels, middle, 1, groups=self.groups, bias=False)
        self.bn1 = nn.BatchNorm2d(middle)
        self.conv2 = depthwise(middle, stride)
        self.bn2 = nn.BatchNorm2d(middle)
        self.conv3 = nn.Conv2d(middle, own_channels, 1, groups=V1_GROUPS, bias=False)
        self.bn3 = nn.BatchNorm2d(own_channels)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to pre-activations (B, out_channels, H / stride, W / stride)."""
        branch = channel_shuffle(functional.relu_(self.bn1(self.conv1(maps))), self.groups)
        # The paper has no ReLU after the depthwise convolution. The literature's checkpoints were trained with it.
        branch = functional.relu_(self.bn2(self.conv2(branch)))
        branch = self.bn3(self.conv3(branch))
        if self.stride == 2:
            return torch.cat([branch, functional.avg_pool2d(maps, 3, stride=2, padding=1)], 1)
        return branch.add_(maps)


class SplitBlock(nn.Module):
    """ShuffleNet V2 unit at constant resolution, with half the channels unchanged; returns pre-activations."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        half = channels // 2
        self.conv1 = nn.Conv2d(half, half, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(half)
        self.conv2 = depthwise(half, 1)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(half, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, channels, H, W) to the same shape. A later ReLU changes the filtered half only."""
        passing, branch = maps.chunk(2, 1)
        branch = functional.relu_(self.bn1(self.conv1(branch)))
        branch = self.bn3(self.conv3(self.bn2(self.conv2(branch))))
        return channel_shuffle(torch.cat([passing, branch], 1), 2)


class DownBlock(nn.Module):
    """ShuffleNet V2 unit with two branches, halving the resolution; returns pre-activations."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        half = out_channels // 2
        self.conv1 = depthwise(in_channels, 2)
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv2 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(half)
        self.conv3 = nn.Conv2d(in_channels, half, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(half)
        self.conv4 = depthwise(half, 2)
        self.bn4 = nn.BatchNorm2d(half)
        self.conv5 = nn.Conv2d(half, half, 1, bias=False)
        self.bn5 = nn.BatchNorm2d(half)

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to pre-activations (B, out_channels, H / 2, W / 2)."""
        left = self.bn2(self.conv2(self.bn1(self.conv1(maps))))
        right = functional.relu_(self.bn3(self.conv3(maps)))
        right = self.bn5(self.conv5(self.bn4(self.conv4(right))))
        return channel_shuffle(torch.cat([left, right], 1), 2)


class ShuffleNetV1(DistillationModel):
    """1 × 1 stem, three stages of grouped units, global average and `linear`; D = 960.

    Args:
        num_classes: number of classes, C.
        in_channels: image channels.

    Source: Zhang et al. 2018, 3 groups at full width.
    """

    def __init__(self, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, STEM_CHANNELS, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        stages = []
        source = STEM_CHANNELS
        for channels, blocks in V1_STAGES:
            later = (GroupedBlock(channels, channels, 1) for _ in range(blocks - 1))
            stages.append(nn.ModuleList([GroupedBlock(source, channels, 2), *later]))
            source = channels
        self.layer1, self.layer2, self.layer3 = stages
        self.linear = nn.Linear(source, num_classes)

    @property
    def head(self) -> nn.Linear:
        """Last linear layer."""
        return self.linear

    def stages(self, images: Tensor) -> StageOutputs:
        """Return the stem and stage maps, and the feature (B, 960)."""
        stem = functional.relu_(self.bn1(self.conv1(images)))
        maps, preactivations = activated_stages(stem, (self.layer1, self.layer2, self.layer3))
        return StageOutputs(maps, preactivations, global_average(maps[-1]))

    def resume(self, index: int, maps: Tensor) -> Tensor:
        """Compute the feature from a stem map (index 0) or a stage map."""
        return global_average(activated_stages(maps, (self.layer1, self.layer2, self.layer3)[index:])[0][-1])


class ShuffleNetV2(DistillationModel):
    """1 × 1 stem, three stages of split units, 1 × 1 convolution, global average and `linear`; D = 1024.

    `preactivations` are shuffled like `maps`, so their channels correspond.

    Args:
        num_classes: number of classes, C.
        in_channels: image channels.

    Source: Ma et al. 2018, width 1; stages of 4, 8 and 4 units.
    """

    def __init__(self, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, STEM_CHANNELS, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(STEM_CHANNELS)
        stages = []
        source = STEM_CHANNELS
        for channels, blocks in V2_STAGES:
            later = (SplitBlock(channels) for _ in range(blocks - 1))
            stages.append(nn.ModuleList([DownBlock(source, channels), *later]))
            source = channels
        self.layer1, self.layer2, self.layer3 = stages
        self.conv2 = nn.Conv2d(source, V2_FEATURE_DIM, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(V2_FEATURE_DIM)
        self.linear = nn.Linear(V2_FEATURE_DIM, num_classes)

    @property
    def head(self) -> nn.Linear:
        """Last linear layer."""
        return self.linear

    def stages(self, images: Tensor) -> StageOutputs:
        """Return the stem and stage maps, and the feature (B, 1024)."""
        stem = functional.relu_(self.bn1(self.conv1(images)))
        maps, preactivations = activated_stages(stem, (self.layer1, self.layer2, self.layer3))
        return StageOutputs(maps, preactivations, self._feature(maps[-1]))

    def resume(self, index: int, maps: Tensor) -> Tensor:
        """Compute the feature from a stem map (index 0) or a stage map."""
        return self._feature(activated_stages(maps, (self.layer1, self.layer2, self.layer3)[index:])[0][-1])

    def _feature(self, last: Tensor) -> Tensor:
        return global_average(functional.relu(self.bn2(self.conv2(last))))
