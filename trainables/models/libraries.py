"""Torchvision and timm models, split into feature and head for distillation."""

import difflib
import importlib
from typing import Any

from torch import Tensor, nn

from trainables.display.nearest import did_you_mean
from trainables.models.interface import DistillationModel, StageOutputs

# Possible attributes for the last layer of a torchvision classifier, in search order.
TORCHVISION_HEADS = ("fc", "classifier", "heads", "head")


class LibraryModel(DistillationModel):
    """Torchvision backbone with a separate last linear layer.

    `maps` is empty, so methods for matching feature maps need an architecture of this package.
    """

    def __init__(self, backbone: nn.Module, head: nn.Linear, *, head_path: str) -> None:
        super().__init__()
        self.backbone = backbone
        self._head = head
        self._head_path = head_path

    @property
    def head(self) -> nn.Linear:
        """Last linear layer."""
        return self._head

    def stages(self, images: Tensor) -> StageOutputs:
        """Return no maps, and the feature (B, D)."""
        return StageOutputs((), (), self.backbone(images))

    def own_key(self, key: str) -> str:
        """Map a torchvision key to ours: `fc.weight` to `_head.weight`, `layer1...` to `backbone.layer1...`."""
        name = key.removeprefix(f"{self._head_path}.")
        return f"backbone.{key}" if name == key else f"_head.{name}"


class TimmModel(DistillationModel):
    """Timm model, split by timm's `forward_features` and `forward_head(pre_logits=True)`."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        if not isinstance(network.get_classifier(), nn.Linear):
            raise ValueError(
                f"this timm model ends in {type(network.get_classifier()).__name__}, not in a linear layer; "
                "choose one that ends in a linear layer, such as timm:resnet18"
            )

    @property
    def head(self) -> nn.Linear:
        """Last linear layer."""
        linear: nn.Linear = self.network.get_classifier()
        return linear

    def stages(self, images: Tensor) -> StageOutputs:
        """Return no maps, and the feature (B, D)."""
        features = self.network.forward_features(images)
        return StageOutputs((), (), self.network.forward_head(features, pre_logits=True))

    def own_key(self, key: str) -> str:
        """Map a timm key to ours, by adding the prefix `network.`."""
        return f"network.{key}"


def build_torchvision_model(name: str, *, num_classes: int, in_channels: int, pretrained: bool) -> DistillationModel:
    """Build a torchvision classifier with a linear last layer; see `build_model` for the arguments."""
    from torchvision import models

    known = models.list_models(module=models)
    if name not in known:
        hint = did_you_mean(name, known, lambda near: repr(f"torchvision:{near}")) or "."
        raise ValueError(f"torchvision has no classifier {name!r}{hint} All names: torchvision.models.list_models()")
    if pretrained and in_channels != 3:
        raise ValueError(f"torchvision's weights are for 3 input channels, not {in_channels}: leave out --pretrained")
    try:
        network = models.get_model(name, weights="DEFAULT" if pretrained else None)
    except (OSError, RuntimeError) as error:
        if not pretrained:
            raise
        raise ValueError(_cannot_fetch(f"torchvision:{name}", error, "~/.cache/torch/hub/checkpoints")) from error
    head, head_path = _take_head(network, name)
    if in_channels != 3:
        _replace_stem(network, name, in_channels)
    if head.out_features != num_classes:
        head = nn.Linear(head.in_features, num_classes, bias=head.bias is not None)
    return LibraryModel(network, head, head_path=head_path)


def build_timm_model(name: str, *, num_classes: int, in_channels: int, pretrained: bool) -> DistillationModel:
    """Build a timm classifier; see `build_model` for the arguments. timm is an optional dependency."""
    try:
        timm: Any = importlib.import_module("timm")
    except ImportError as error:
        raise ValueError(f"timm:{name} needs timm, which is not installed: pip install timm") from error
    try:
        network = timm.create_model(name, pretrained=pretrained, num_classes=num_classes, in_chans=in_channels)
    except (OSError, RuntimeError) as error:
        if pretrained:
            raise ValueError(_cannot_fetch(f"timm:{name}", error, "~/.cache/huggingface")) from error
        nearest = difflib.get_close_matches(name, timm.list_models(), n=1, cutoff=0.5)
        hint = f" Did you mean {f'timm:{nearest[0]}'!r}?" if nearest else ""
        raise ValueError(f"timm could not build {name!r}: {str(error).rstrip('.')}.{hint}") from error
    return TimmModel(network)


def _take_head(network: nn.Module, name: str) -> tuple[nn.Linear, str]:
    """Replace the last linear layer with an identity, and return the layer with the path."""
    for attribute in TORCHVISION_HEADS:
        parent, key, path = network, attribute, attribute
        module: nn.Module | None = getattr(network, attribute, None)
        while isinstance(module, nn.Sequential) and len(module):
            parent, (key, module) = module, list(module.named_children())[-1]
            path = f"{path}.{key}"
        if isinstance(module, nn.Linear) and not hasattr(network, "aux_logits"):
            setattr(parent, key, nn.Identity())
            return module, path
    raise ValueError(
        f"torchvision:{name} does not end in a single linear layer, which distillation needs; choose another, "
        "such as torchvision:resnet18"
    )


def _replace_stem(network: nn.Module, name: str, in_channels: int) -> None:
    """Replace the first convolution with one for `in_channels` channels, with fresh weights."""
    for path, module in network.named_modules():
        if isinstance(module, nn.Conv2d) and module.in_channels == 3 and module.groups == 1:
            parent, _, key = path.rpartition(".")
            stem = nn.Conv2d(
                in_channels,
                module.out_channels,
                _pair(module.kernel_size),
                stride=_pair(module.stride),
                padding=module.padding if isinstance(module.padding, str) else _pair(module.padding),
                bias=module.bias is not None,
            )
            setattr(network.get_submodule(parent), key, stem)
            return
    raise ValueError(f"torchvision:{name} takes only 3 input channels, not {in_channels}")


def _pair(sizes: tuple[int, ...]) -> tuple[int, int]:
    height, width = sizes
    return height, width


def _cannot_fetch(name: str, error: Exception, cache: str) -> str:
    return (
        f"the published weights of {name} could not be downloaded ({type(error).__name__}: {error}). Without "
        f"a network, copy them into the library's cache ({cache}), or leave out --pretrained"
    )
