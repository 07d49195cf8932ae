"""Residual networks for 32 × 32 images: resnet8 to resnet110, and resnet8x4 and resnet32x4 with wider layers.

Parameter names match RepDistiller's and mdistiller's checkpoints: `conv1`, `bn1`, `layer1..3`, `fc`.

resnet8a to resnet110a have shortcuts without parameters. Their parameter names match akamaster's
pytorch_resnet_cifar10, the most used CIFAR-10 checkpoints: `conv1`, `bn1`, `layer1..3`, `linear`.
"""

from typing import Final, Literal

from torch import Tensor, nn
from torch.nn import functional

from trainables.models.interface import DistillationModel, StageOutputs
from trainables.models.layers import activated_stages, global_average, initialise_he

Widths = tuple[int, int, int, int]
_DEPTHS: Final = (8, 14, 20, 32, 44, 56, 110)
_THIN: Final[Widths] = (16, 16, 32, 64)

# name: (depth, channels of the stem and of the three stages)
RESNETS: Final[dict[str, tuple[int, Widths]]] = {
    **{f"resnet{depth}": (depth, _THIN) for depth in _DEPTHS},
    "resnet8x4": (8, (32, 64, 128, 256)),
    "resnet32x4": (32, (32, 64, 128, 256)),
}
# name: depth, for networks with zero-padded shortcuts
ZERO_PAD_RESNETS: Final[dict[str, int]] = {f"resnet{depth}a": depth for depth in _DEPTHS}

Shortcut = Literal["projection", "zero_pad"]


class ZeroPad(nn.Module):
    """Shortcut without parameters: every `stride`-th position, with zero channels added on both sides.

    Args:
        in_channels: input channels.
        out_channels: output channels, more than `in_channels`. Half the difference is added on each side.
        stride: stride in both directions.

    Source: He et al. 2016, section 4.2, option A. The paper does not define the zero channels' position. The
    position here follows pytorch_resnet_cifar10.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.before = (out_channels - in_channels) // 2
        self.after = out_channels - in_channels - self.before

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to (B, out_channels, H / stride, W / stride)."""
        sampled = maps[:, :, :: self.stride, :: self.stride]
        return functional.pad(sampled, (0, 0, 0, 0, self.before, self.after))


class BasicBlock(nn.Module):
    """Residual block of two 3 × 3 convolutions; returns the sum before the last ReLU."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, *, shortcut: Shortcut = "projection") -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.downsample: nn.Module | None = None
        if shortcut == "zero_pad" and in_channels != out_channels:
            self.downsample = ZeroPad(in_channels, out_channels, stride)
        elif stride != 1 or in_channels != out_channels:
            projection = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)
            self.downsample = nn.Sequential(projection, nn.BatchNorm2d(out_channels))

    def forward(self, maps: Tensor) -> Tensor:
        """Map (B, in_channels, H, W) to pre-activations (B, out_channels, H / stride, W / stride)."""
        shortcut = maps if self.downsample is None else self.downsample(maps)
        branch = functional.relu_(self.bn1(self.conv1(maps)))
        residual: Tensor = self.bn2(self.conv2(branch))
        return residual.add_(shortcut)


def make_stage(
    blocks: int, in_channels: int, out_channels: int, stride: int, *, shortcut: Shortcut = "projection"
) -> nn.ModuleList:
    """Build a stage of `blocks` basic blocks. The first block changes width and resolution."""
    first = BasicBlock(in_channels, out_channels, stride, shortcut=shortcut)
    return nn.ModuleList([first, *(BasicBlock(out_channels, out_channels, 1) for _ in range(blocks - 1))])


class _BasicBlockNet(DistillationModel):
    """Stem, three stages of basic blocks at full, half and quarter resolution, and global average; no head.

    Args:
        depth: 6n + 2, with n blocks in each stage.
        channels: channels in the stem and the three stages.
        in_channels: image channels.
        shortcut: shortcut kind where width or resolution changes.
    """

    def __init__(self, depth: int, channels: Widths, *, in_channels: int, shortcut: Shortcut) -> None:
        super().__init__()
        blocks = depth // 6
        stem, first, second, third = channels
        self.conv1 = nn.Conv2d(in_channels, stem, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(stem)
        self.layer1 = make_stage(blocks, stem, first, 1, shortcut=shortcut)
        self.layer2 = make_stage(blocks, first, second, 2, shortcut=shortcut)
        self.layer3 = make_stage(blocks, second, third, 2, shortcut=shortcut)

    def stages(self, images: Tensor) -> StageOutputs:
        """Return the stem and stage maps, and the feature (B, D)."""
        stem = functional.relu_(self.bn1(self.conv1(images)))
        maps, preactivations = activated_stages(stem, (self.layer1, self.layer2, self.layer3))
        return StageOutputs(maps, preactivations, global_average(maps[-1]))

    def resume(self, index: int, maps: Tensor) -> Tensor:
        """Compute the feature from a stem map (index 0) or a stage map."""
        return global_average(activated_stages(maps, (self.layer1, self.layer2, self.layer3)[index:])[0][-1])


class ResNet(_BasicBlockNet):
    """Three stages of basic blocks, global average and `fc`.

    Args:
        depth: 6n + 2, with n blocks in each stage.
        channels: channels in the stem and the three stages.
        num_classes: number of classes, C.
        in_channels: image channels.

    Source: He et al. 2016, section 4.2, with projection shortcuts where width or resolution changes (option B). The
    x4 networks' widths are from Tian et al. 2020 (CRD).
    """

    def __init__(self, depth: int, channels: Widths, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__(depth, channels, in_channels=in_channels, shortcut="projection")
        self.fc = nn.Linear(channels[-1], num_classes)
        initialise_he(self)

    @property
    def head(self) -> nn.Linear:
        """Last linear layer."""
        return self.fc


class ZeroPadResNet(_BasicBlockNet):
    """`ResNet` with 16, 16, 32 and 64 channels, zero-padded shortcuts, and `linear` in place of `fc`.

    Args:
        depth: 6n + 2, with n blocks in each stage.
        num_classes: number of classes, C.
        in_channels: image channels.

    Source: He et al. 2016, section 4.2, option A, with layer names from pytorch_resnet_cifar10. That code initialises
    by fan-in; here weights are initialised by fan-out, as in all other networks.
    """

    def __init__(self, depth: int, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__(depth, _THIN, in_channels=in_channels, shortcut="zero_pad")
        self.linear = nn.Linear(_THIN[-1], num_classes)
        initialise_he(self)

    @property
    def head(self) -> nn.Linear:
        """Last linear layer."""
        return self.linear
