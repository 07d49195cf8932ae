"""Recognise an architecture by weight names and shapes, for error messages.

Candidate networks are built on the meta device, without memory for weights.
"""

import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from trainables.models.interface import DistillationModel
from trainables.models.layouts import fits
from trainables.models.zoo import build_model
from trainables.spec.architectures import CIFAR_NAMES

# Popular timm models. Building all of timm's thousand models would take minutes.
_TIMM_NAMES: Final = (
    "vit_tiny_patch16_224", "vit_small_patch16_224", "vit_base_patch16_224", "deit_tiny_patch16_224",
    "deit_small_patch16_224", "deit_base_patch16_224", "resnet18d", "resnet50d", "mobilenetv3_small_050",
    "mobilenetv3_small_100", "mobilenetv3_large_100", "efficientnet_b0", "convnext_tiny", "convnext_base",
)  # fmt: skip
# Key prefixes in timm models. Weights without them are not compared with timm models.
_TIMM_KEYS: Final = ("blocks.", "patch_embed.", "stages.", "conv_stem.", "conv1.0.")
_STATISTICS: Final = ("running_mean", "running_var", "num_batches_tracked")
_SMALLEST_TORCHVISION: Final = 300_000  # parameters; shufflenet_v2_x0_5 has 341,792 without the last layer
_PUBLISHED_CHANNELS: Final = 3  # torchvision models' input channels
_LARGEST: Final = 10_000  # upper bound for plausible classes, image channels and channels of a small CNN


def recognise(candidates: Sequence[Mapping[str, Tensor]]) -> str | None:
    """Return the first fitting architecture: ours are tried first, then torchvision's, then timm's.

    Args:
        candidates: state dicts to try, without prefixes.
    """
    for weights in candidates:
        classes, channels = _sizes(weights)
        if not (0 < classes <= _LARGEST and 0 < channels <= _LARGEST):
            continue
        for names in (_own_names(weights), _torchvision_names(weights, classes), _timm_names(weights)):
            for name in names:
                if _fits(weights, name, classes, channels):
                    return name
    return None


def _sizes(weights: Mapping[str, Tensor]) -> tuple[int, int]:
    """Return the number of classes and image channels in a network with these weights; 0 if unknown."""
    matrices = [value for key, value in weights.items() if key.endswith("weight") and value.ndim == 2]
    filters = [value for key, value in weights.items() if key.endswith("weight") and value.ndim == 4]
    return (matrices[-1].shape[0] if matrices else 0), (filters[0].shape[1] if filters else 0)


def _own_names(weights: Mapping[str, Tensor]) -> Iterator[str]:
    first, second = (weights.get(f"conv{number}.weight") for number in (1, 2))
    if first is not None and second is not None and len(first) <= _LARGEST > len(second):
        yield f"cnn_{len(first)}_{len(second)}"
    yield from CIFAR_NAMES


def _timm_names(weights: Mapping[str, Tensor]) -> Iterator[str]:
    if any(key.startswith(_TIMM_KEYS) for key in weights):
        yield from (f"timm:{name}" for name in _TIMM_NAMES)


def _torchvision_names(weights: Mapping[str, Tensor], classes: int) -> Iterator[str]:
    """Yield torchvision models with the same parameter count, leaving the first and the last layer aside."""
    learnt = (value for key, value in weights.items() if not key.endswith(_STATISTICS))
    parameters = sum(math.prod(value.shape) for value in learnt)
    stem = next(value for key, value in weights.items() if key.endswith("weight") and value.ndim == 4)
    parameters += (_PUBLISHED_CHANNELS - stem.shape[1]) * math.prod(stem.shape) // stem.shape[1]
    if parameters < _SMALLEST_TORCHVISION:
        return
    from torchvision import models  # the import takes a second or more

    heads = [value for key, value in weights.items() if key.endswith("weight") and value.ndim == 2]
    for name in models.list_models(module=models):
        meta = models.get_model_weights(name).DEFAULT.meta
        published = len(meta["categories"])
        if heads and meta["num_params"] == parameters + (published - classes) * (heads[-1].shape[1] + 1):
            yield f"torchvision:{name}"


def _fits(weights: Mapping[str, Tensor], name: str, classes: int, channels: int) -> bool:
    try:
        with warnings.catch_warnings(), torch.device("meta"):
            warnings.simplefilter("ignore")
            model: DistillationModel = build_model(name, num_classes=classes, in_channels=channels)
    except (ValueError, RuntimeError):  # timm is not installed, or the model does not support these channels
        return False
    return fits(weights, model)
