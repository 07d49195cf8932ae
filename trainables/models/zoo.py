"""Build every architecture by name."""

from collections.abc import Callable
from functools import partial
from typing import Final

from trainables.models.bottleneck_resnet import BottleneckResNet
from trainables.models.cnn import SmallCNN
from trainables.models.ensemble import TeacherEnsemble
from trainables.models.interface import DistillationModel
from trainables.models.libraries import build_timm_model, build_torchvision_model
from trainables.models.mobilenet import MobileNetV2
from trainables.models.resnet import RESNETS, ZERO_PAD_RESNETS, ResNet, ZeroPadResNet
from trainables.models.shufflenet import ShuffleNetV1, ShuffleNetV2
from trainables.models.user_model import build_user_model
from trainables.models.vgg import VGG, VGGS
from trainables.models.wide_resnet import WIDE_RESNETS, WideResNet
from trainables.spec.architectures import CNN_PATTERN, LIBRARY_PATTERN, check_model_name, ensemble_members
from trainables.user_code.reference import is_canonical

CIFAR_MODELS: Final[dict[str, Callable[..., DistillationModel]]] = {
    **{name: partial(ResNet, depth, channels) for name, (depth, channels) in RESNETS.items()},
    **{name: partial(ZeroPadResNet, depth) for name, depth in ZERO_PAD_RESNETS.items()},
    "ResNet50": BottleneckResNet,
    **{name: partial(WideResNet, depth, factor) for name, (depth, factor) in WIDE_RESNETS.items()},
    **{name: partial(VGG, convolutions) for name, convolutions in VGGS.items()},
    "MobileNetV2": MobileNetV2,
    "ShuffleV1": ShuffleNetV1,
    "ShuffleV2": ShuffleNetV2,
}


def build_model(name: str, *, num_classes: int, in_channels: int = 3, pretrained: bool = False) -> DistillationModel:
    """Build an architecture in train mode, with fresh weights from torch's global generator.

    Args:
        name: name accepted by `check_model_name` or `check_teacher_name`.
        num_classes: number of classes, C.
        in_channels: image channels.
        pretrained: whether to load a torchvision or timm model's published weights, using the library's own loader. If
            the number of classes differs, the head is drawn fresh.

    Raises:
        ValueError: the name is unknown (the message gives the nearest known name); the model has no last linear layer;
            user code fails; or `pretrained` is set, and no weights are published or the download fails.
    """
    if members := ensemble_members(name):
        parts = [build_model(each, num_classes=num_classes, in_channels=in_channels) for each in members]
        return TeacherEnsemble(parts, num_classes=num_classes, in_channels=in_channels)
    name = check_model_name(name)
    if num_classes < 1 or in_channels < 1:
        raise ValueError(f"num_classes is {num_classes} and in_channels is {in_channels}: both must be 1 or more")
    library = LIBRARY_PATTERN.fullmatch(name)
    if library:
        build = build_torchvision_model if library[1] == "torchvision" else build_timm_model
        return build(library[2], num_classes=num_classes, in_channels=in_channels, pretrained=pretrained)
    if pretrained:
        raise ValueError(
            f"no published weights exist for {name!r}: give your own checkpoint, or use a torchvision:NAME or "
            "timm:NAME model"
        )
    if is_canonical(name):
        return build_user_model(name, num_classes=num_classes, in_channels=in_channels)
    small = CNN_PATTERN.fullmatch(name)
    if small:
        return SmallCNN((int(small[1]), int(small[2])), num_classes=num_classes, in_channels=in_channels)
    return CIFAR_MODELS[name](num_classes=num_classes, in_channels=in_channels)
