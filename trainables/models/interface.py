"""What every student and teacher offers, whatever its architecture."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn


class StageOutputs(NamedTuple):
    """What one pass through everything but the head gives.

    Args:
        maps: after the stem and after each stage, (B, C_i, H_i, W_i): what the literature's feature methods
            match, so activated unless the architecture ends a stage otherwise (the sums of wide residual
            nets, the linear bottlenecks of MobileNetV2). Empty for the nets of other libraries.
        preactivations: the same maps before the ReLU that follows or ends the stage, same shapes; the very
            same tensors for the stem and wherever there is no such ReLU.
        feature: (B, D), what the head sees.
    """

    maps: tuple[Tensor, ...]
    preactivations: tuple[Tensor, ...]
    feature: Tensor


class FeatureMaps(NamedTuple):
    """`StageOutputs` and the logits (B, C) of the same pass, for methods that also match maps."""

    maps: tuple[Tensor, ...]
    preactivations: tuple[Tensor, ...]
    feature: Tensor
    logits: Tensor


class DistillationModel(nn.Module, ABC):
    """A classifier split into a penultimate feature and a last linear layer.

    A model is `stages` and `head`; the rest follows. The head keeps the attribute name under which the
    checkpoints of the literature store it (`fc`, `linear`, `classifier`), and `head` points at it.
    """

    @property
    @abstractmethod
    def head(self) -> nn.Linear:
        """The last linear layer, D to C."""

    @abstractmethod
    def stages(self, images: Tensor) -> StageOutputs:
        """Every stage's maps and the feature, for images (B, in_channels, H, W)."""

    def resume(self, index: int, maps: Tensor) -> Tensor:  # noqa: ARG002
        """The penultimate feature (B, D) that follows from maps in the place of the net's own.

        Args:
            index: of them in `StageOutputs.maps`, not the last.
            maps: (B, C_i, H_i, W_i).

        Raises:
            ValueError: for a net of another library, which has no stages here.
        """
        raise ValueError(f"{type(self).__name__} has no stages to go on from")

    def features(self, images: Tensor) -> Tensor:
        """The penultimate feature (B, D) of images (B, in_channels, H, W)."""
        return self.stages(images).feature

    def feature_maps(self, images: Tensor) -> FeatureMaps:
        """Every stage's maps, the feature and the logits from a single pass.

        A single pass matters in train mode: a second one would move the running statistics again.
        """
        outputs = self.stages(images)
        return FeatureMaps(*outputs, logits=self.head(outputs.feature))

    def forward(self, images: Tensor) -> Tensor:
        """The logits (B, C) of images (B, in_channels, H, W)."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def own_key(self, key: str) -> str:
        """What this net calls a weight that a checkpoint of the architecture's home calls `key`; here the same."""
        return key
