"""VGG networks with batch norm and one linear layer for 32 × 32 images: vgg8, vgg11, vgg13, vgg16, vgg19.

Parameter names match RepDistiller's and mdistiller's checkpoints: `block0..4`, `classifier`.
"""

from typing import Final

from torch import Tensor, nn
from torch.nn import functional

from trainables.models.interface import DistillationModel, StageOutputs
from trainables.models.layers import global_average, initialise_he

# name: convolutions in each of the five stages
VGGS: Final[dict[str, tuple[int, int, int, int, int]]] = {
    "vgg8": (1, 1, 1, 1, 1),
    "vgg11": (1, 1, 2, 2, 2),
    "vgg13": (2, 2, 2, 2, 2),
    "vgg16": (2, 2, 3, 3, 3),
    "vgg19": (2, 2, 4, 4, 4),
}
CHANNELS = (64, 128, 256, 512, 512)
# The literature pools before the last stage only for Tiny-ImageNet's 64 × 64 images.
LARGE_IMAGE = 64


def make_stage(convolutions: int, in_channels: int, out_channels: int) -> nn.Sequential:
    """Build a stage of conv3x3 - BN pairs, with a ReLU between the pairs and none at the end."""
    layers: list[nn.Module] = []
    for index in range(convolutions):
        if index:
            layers.append(nn.ReLU(inplace=True))
        source = out_channels if index else in_channels
        layers += [nn.Conv2d(source, out_channels, 3, padding=1), nn.BatchNorm2d(out_channels)]
    return nn.Sequential(*layers)


class VGG(DistillationModel):
    """Five stages, max pooling after each of the first three, global average and `classifier`; D = 512.

    Images of 64 pixels and more are also pooled after the fourth stage.

    Args:
        convolutions: convolution count per stage.
        num_classes: number of classes, C.
        in_channels: image channels. Height and width of the images must be 8 pixels or more.

    Source: Simonyan and Zisserman 2015, configurations A, B, D and E, with batch norm and without the two hidden linear
    layers, as in the CIFAR distillation literature.
    """

    def __init__(self, convolutions: tuple[int, int, int, int, int], *, num_classes: int, in_channels: int = 3) -> None:
        super().__init__()
        inputs = (in_channels, *CHANNELS)
        stages = [make_stage(n, inputs[i], CHANNELS[i]) for i, n in enumerate(convolutions)]
        self.block0, self.block1, self.block2, self.block3, self.block4 = stages
        self.classifier = nn.Linear(CHANNELS[-1], num_classes)
        initialise_he(self, linear_std=0.01)

    @property
    def head(self) -> nn.Linear:
        """Last linear layer."""
        return self.classifier

    def stages(self, images: Tensor) -> StageOutputs:
        """Return the five stages' maps, each before pooling, and the feature (B, 512)."""
        pools_after_fourth = min(images.shape[2:]) >= LARGE_IMAGE
        maps, preactivations = [functional.relu_(self.block0(images))], []
        preactivations.append(maps[0])
        for index, stage in enumerate((self.block1, self.block2, self.block3, self.block4)):
            pooled = functional.max_pool2d(maps[-1], 2) if index < 3 or pools_after_fourth else maps[-1]
            preactivations.append(stage(pooled))
            maps.append(functional.relu(preactivations[-1]))
        return StageOutputs(tuple(maps), tuple(preactivations), global_average(maps[-1]))

    def resume(self, index: int, maps: Tensor) -> Tensor:
        """Compute the feature from the first stage's map (index 0) or a later map."""
        # Maps of the fourth stage have an eighth of the image's height and width.
        for later in range(index, 4):
            pools = later < 3 or min(maps.shape[2:]) * 8 >= LARGE_IMAGE
            pooled = functional.max_pool2d(maps, 2) if pools else maps
            maps = functional.relu((self.block1, self.block2, self.block3, self.block4)[later](pooled))
        return global_average(maps)
