"""Wide residual networks for 32 × 32 images: wrn_16_1, wrn_16_2, wrn_40_1, wrn_40_2.

Parameter names match RepDistiller's and mdistiller's checkpoints: `conv1`, `block1..3.layer`, `bn1`, `fc`.
"""

from typing import Final

from torch import Tensor, nn
from torch.nn import functional

from trainables.models.interface import DistillationModel, StageOutputs
from trainables.models.layers import global_average, initialise_he

# name: (depth, width factor)
WIDE_RESNETS: Final[dict[str, tuple[int, int]]] = {
    "wrn_16_1": (16, 1),
    "wrn_16_2": (16, 2),
    "wrn_40_1": (40, 1),
    "wrn_40_2": (40, 2),
}


class PreActivationBlock(nn.Module):
    """Pre-activation block of two 3 × 3 convolutions, with a projected shortcut if the width changes.

    A batch norm and a ReLU precede each convolution.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(in_channels)
        self.conv1 = nn.Conv2d(in_channels, out_channels, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(out_channels)
        self.conv2 = nn.Conv2d(out_channels, out_channels, 3, padding=1, bias=False)
        self.convShortcut: nn.Conv2d | None = None
        if in_channels != out_channels:
            self.convShortcut = nn.Conv2d(in_channels, out_channels, 1, stride=stride, bias=False)

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the block's sum (B, out_channels, H', W'), and `maps` after the first batch norm."""
        normalised: Tensor = self.bn1(maps)
        activated = functional.relu(normalised)
        shortcut = maps if self.convShortcut is None else self.convShortcut(activated)
        residual: Tensor = self.conv2(functional.relu_(self.bn2(self.conv1(activated))))
        return residual.add_(shortcut), normalised


class WideStage(nn.Module):
    """Stage of `blocks` pre-activation blocks. The first block changes width and resolution."""

    def __init__(self, blocks: int, in_channels: int, out_channels: int, stride: int) -> None:
        super().__init__()
        first = PreActivationBlock(in_channels, out_channels, stride)
        later = (PreActivationBlock(out_channels, out_channels, 1) for _ in range(blocks - 1))
        self.layer = nn.ModuleList([first, *later])

    def forward(self, maps: Tensor) -> tuple[Tensor, Tensor]:
        """Return the stage's sum, and the stage's input after the first batch norm."""
        summed, normalised_input = self.layer[0](maps)
        for block in self.layer[1:]:
            summed, _ = block(summed)
        return summed, normalised_input


class WideResNet(DistillationModel):
    """Stem, three pre-activation stages, batch norm, ReLU, global average and `fc`; D = 64 · `factor`.

    Each stage ends in a sum without a ReLU. `maps` contains these sums, as in the literature's feature methods.
    `preactivations` contains the sums after the next batch norm; a ReLU of these values gives the activated map.

    Args:
        depth: 6n + 4, with n blocks in each stage.
        factor: width factor; the stages have 16, 32 and 64 channels times this factor.
        num_classes: number of classes, C.
        in_channels: image channels.

    Source: Zagoruyko and Komodakis 2016, without dropout.
    """

    def __init__(self, depth: int, factor: int, *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        blocks = depth // 6
        first, second, third = 16 * factor, 32 * factor, 64 * factor
        self.conv1 = nn.Conv2d(in_channels, 16, 3, padding=1, bias=False)
        self.block1 = WideStage(blocks, 16, first, 1)
        self.block2 = WideStage(blocks, first, second, 2)
        self.block3 = WideStage(blocks, second, third, 2)
        self.bn1 = nn.BatchNorm2d(third)
        self.fc = nn.Linear(third, num_classes)
        initialise_he(self)
        nn.init.zeros_(self.fc.bias)

    @property
    def head(self) -> nn.Linear:
        """Last linear layer."""
        return self.fc

    def stages(self, images: Tensor) -> StageOutputs:
        """Return the sums of the stem and the stages, the same after the next batch norm, and the feature (B, D)."""
        stem = self.conv1(images)
        first, _ = self.block1(stem)
        # Each batch norm runs once in a pass, inside its block. A second call would update the statistics twice.
        second, normalised_first = self.block2(first)
        third, normalised_second = self.block3(second)
        normalised_third = self.bn1(third)
        return StageOutputs(
            (stem, first, second, third),
            (stem, normalised_first, normalised_second, normalised_third),
            global_average(functional.relu(normalised_third)),
        )

    def resume(self, index: int, maps: Tensor) -> Tensor:
        """Compute the feature from the stem map (index 0) or a stage sum."""
        for stage in (self.block1, self.block2, self.block3)[index:]:
            maps, _ = stage(maps)
        return global_average(functional.relu(self.bn1(maps)))
