"""Interface for all students and teachers, with any architecture."""

from abc import ABC, abstractmethod
from typing import NamedTuple

from torch import Tensor, nn


class StageOutputs(NamedTuple):
    """Forward pass outputs up to the head.

    Args:
        maps: maps after the stem and after each stage, (B, C_i, H_i, W_i), as matched by the feature methods of the
            literature. Maps are after the ReLU, except in architectures with stages that end without a ReLU: the sums
            of wide residual nets and the linear bottlenecks of MobileNetV2. Empty for models of other libraries.
        preactivations: the same maps before the ReLU at the end of the stage or after the stage, with the same shapes.
            For the stem, and for stages without this ReLU, they are the same tensors as in `maps`.
        feature: the head's input, (B, D).
    """

    maps: tuple[Tensor, ...]
    preactivations: tuple[Tensor, ...]
    feature: Tensor


class FeatureMaps(NamedTuple):
    """`StageOutputs` with the logits (B, C) of the same pass, for methods that also match maps."""

    maps: tuple[Tensor, ...]
    preactivations: tuple[Tensor, ...]
    feature: Tensor
    logits: Tensor


class DistillationModel(nn.Module, ABC):
    """Classifier split into a penultimate feature and a last linear layer.

    Subclasses implement `stages` and `head`. The head keeps the attribute name of the literature's checkpoints (`fc`,
    `linear`, `classifier`), and the property `head` returns the layer.
    """

    @property
    @abstractmethod
    def head(self) -> nn.Linear:
        """Last linear layer, D to C."""

    @abstractmethod
    def stages(self, images: Tensor) -> StageOutputs:
        """Return every stage's maps and the feature for images (B, in_channels, H, W)."""

    def resume(self, index: int, maps: Tensor) -> Tensor:  # noqa: ARG002
        """Compute the penultimate feature (B, D) from replacement maps of a stage.

        Args:
            index: index of the maps in `StageOutputs.maps`, except the last index.
            maps: replacement maps, (B, C_i, H_i, W_i).

        Raises:
            ValueError: the model is from another library and has no stages.
        """
        raise ValueError(f"{type(self).__name__} cannot resume from the output of a stage")

    def features(self, images: Tensor) -> Tensor:
        """Return the penultimate feature (B, D) for images (B, in_channels, H, W)."""
        return self.stages(images).feature

    def feature_maps(self, images: Tensor) -> FeatureMaps:
        """Return every stage's maps, the feature and the logits from a single pass.

        A second pass in train mode would update the running statistics twice.
        """
        outputs = self.stages(images)
        return FeatureMaps(*outputs, logits=self.head(outputs.feature))

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (B, C) for images (B, in_channels, H, W)."""
        logits: Tensor = self.head(self.features(images))
        return logits

    def own_key(self, key: str) -> str:
        """Map a key of the original library's checkpoints to ours.

        The default implementation returns `key` unchanged.
        """
        return key
