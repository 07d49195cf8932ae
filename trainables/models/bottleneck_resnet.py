"""ResNet50 in the CIFAR form: the stem keeps full resolution, without pooling before the first stage.

Parameter names match RepDistiller's and mdistiller's checkpoints: `conv1`, `bn1`, `layer1..4`, `linear`.
"""

from torch import Tensor, nn
from torch.nn import functional

from trainables.models.interface import DistillationModel, StageOutputs
from trainables.models.layers import activated_stages, global_average, initialise_he

EXPANSION = 4
# (blocks, width of the 3 × 3 convolution, stride of the first block)
STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))


class BottleneckBlock(nn.Module):
    """Residual block of 1 × 1, 3 × 3 and 1 × 1 convolutions; returns the sum before the last ReLU."""

    def __init__(self, in_channels: int, width: int, stride: int) -> None:
        super().__init__()
        out_channels = EXPANSION * width
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.shortcut = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to pre-activations (B, 4 · width, H / stride, W / stride)."""
        branch = functional.relu_(self.bn1(self.conv1(maps)))
        branch = functional.relu_(self.bn2(self.conv2(branch)))
        residual: Tensor = self.bn3(self.conv3(branch))
        return residual.add_(self.shortcut(maps))


def make_stage(blocks: int, in_channels: int, width: int, stride: int) -> nn.ModuleList:
    """Build a stage of `blocks` bottleneck blocks. The first block changes width and resolution."""
    later = (BottleneckBlock(EXPANSION * width, width, 1) for _ in range(blocks - 1))
    return nn.ModuleList([BottleneckBlock(in_channels, width, stride), *later])


class BottleneckResNet(DistillationModel):
    """3 × 3 stem, four stages of bottleneck blocks, global average pooling and `linear`; D = 2048.

    Args:
        num_classes: number of classes, C.
        in_channels: image channels.

    Source: He et al. 2016, table 1 (50 layers), without stride and pooling in the stem.
    """

    def __init__(self, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, 64, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        inputs = (64, *(EXPANSION * width for _, width, _ in STAGES))
        stages = [make_stage(n, inputs[i], width, stride) for i, (n, width, stride) in enumerate(STAGES)]
        self.layer1, self.layer2, self.layer3, self.layer4 = stages
        self.linear = nn.Linear(inputs[-1], num_classes)
        initialise_he(self)

    @property
    def head(self) -> nn.Linear:
        """Last linear layer."""
        return self.linear

    def stages(self, images: Tensor) -> StageOutputs:
        """Return the stem and stage maps, and the feature (B, 2048)."""
        stem = functional.relu_(self.bn1(self.conv1(images)))
        maps, preactivations = activated_stages(stem, (self.layer1, self.layer2, self.layer3, self.layer4))
        return StageOutputs(maps, preactivations, global_average(maps[-1]))

    def resume(self, index: int, maps: Tensor) -> Tensor:
        """Compute the feature from a stem map (index 0) or a stage map."""
        return global_average(
            activated_stages(maps, (self.layer1, self.layer2, self.layer3, self.layer4)[index:])[0][-1]
        )
