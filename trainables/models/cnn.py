"""Small CNNs, trained in seconds on one core, with accuracies low enough to distinguish methods."""

import math

from torch import Tensor, nn
from torch.nn import functional

from trainables.models.interface import DistillationModel, StageOutputs

# Height and width of the pooled map, because a global average loses the position of strokes. On the 8 × 8 digits after
# 15 epochs, cnn_3_4 reaches 32-45% with a global average and 77-86% with 2 × 2 positions (n = 6 seeds each).
GRID = 2


class SmallCNN(DistillationModel):
    """conv3x3 - BN - ReLU - maxpool 2 - conv3x3 - BN - ReLU - average to 2 × 2 - linear; D = 4 · B.

    Args:
        channels: A and B, the two convolutions' channels.
        num_classes: number of classes, C.
        in_channels: image channels. Height and width of the images must be 8 pixels or more.
    """

    def __init__(self, channels: tuple[int, int], *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        first, second = channels
        self.conv1 = nn.Conv2d(in_channels, first, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(first)
        self.conv2 = nn.Conv2d(first, second, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(second)
        self.fc = nn.Linear(second * GRID**2, num_classes)

    @property
    def head(self) -> nn.Linear:
        """Last linear layer."""
        return self.fc

    def stages(self, images: Tensor) -> StageOutputs:
        """Return both convolutions' maps, the first before pooling, and the feature (B, D)."""
        stem = functional.relu_(self.bn1(self.conv1(images)))
        preactivation, activated, feature = self._after(stem)
        return StageOutputs((stem, activated), (stem, preactivation), feature)

    def resume(self, index: int, maps: Tensor) -> Tensor:
        """Compute the feature from the first convolution's map."""
        assert index == 0
        return self._after(maps)[2]

    def _after(self, stem: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        preactivation = self.bn2(self.conv2(functional.max_pool2d(stem, 2)))
        activated = functional.relu(preactivation)
        # Unlike adaptive pooling, average pooling has a deterministic gradient on CUDA.
        window = [math.ceil(size / GRID) for size in activated.shape[2:]]
        return preactivation, activated, functional.avg_pool2d(activated, window, ceil_mode=True).flatten(1)
