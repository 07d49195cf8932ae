"""Which architecture names `build_model` knows; imports no torch, so that a plan is checked in no time."""

import re
from typing import Final

from trainables.naming import unknown_name

# cnn_32_64: a small convolutional net for small images, its name gives the channels of its convolutions.
CNN_PATTERN = re.compile(r"cnn_(\d{1,4})_(\d{1,4})")

CNN_EXAMPLES = ("cnn_3_4", "cnn_8_16", "cnn_32_64")

# The nets of the CIFAR distillation literature, by the names under which its tables have them.
CIFAR_NAMES: Final[tuple[str, ...]] = (
    "resnet8",
    "resnet14",
    "resnet20",
    "resnet32",
    "resnet44",
    "resnet56",
    "resnet110",
    "resnet8x4",
    "resnet32x4",
    "ResNet50",
    "wrn_16_1",
    "wrn_16_2",
    "wrn_40_1",
    "wrn_40_2",
    "vgg8",
    "vgg11",
    "vgg13",
    "vgg16",
    "vgg19",
    "MobileNetV2",
    "ShuffleV1",
    "ShuffleV2",
)

# D, the width of the penultimate feature.
_CIFAR_FEATURES: Final[dict[str, int]] = {
    **dict.fromkeys(CIFAR_NAMES, 64),
    **dict.fromkeys(("resnet8x4", "resnet32x4"), 256),
    **dict.fromkeys(("wrn_16_2", "wrn_40_2"), 128),
    **dict.fromkeys(("vgg8", "vgg11", "vgg13", "vgg16", "vgg19"), 512),
    "ResNet50": 2048,
    "MobileNetV2": 1280,
    "ShuffleV1": 960,
    "ShuffleV2": 1024,
}
_CNN_POSITIONS: Final = 4  # 2 × 2 positions of the last map reach the head

# torchvision:resnet18 and timm:vit_tiny_patch16_224 name the architectures of those libraries.
LIBRARY_PATTERN = re.compile(r"(torchvision|timm):([A-Za-z0-9_.\-]+)")

# What other code bases call a net that has another name here.
FOREIGN_NAMES: Final[dict[str, str]] = {
    "mobile_half": "MobileNetV2",
    **{f"{name}_bn": name for name in CIFAR_NAMES if name.startswith("vgg")},
}


def check_model_name(name: str) -> str:
    """`name`, if `build_model` knows it; of `torchvision:` and `timm:` names, only the form is checked.

    Raises:
        ValueError: naming the nearest known name.
    """
    match = CNN_PATTERN.fullmatch(name)
    if match and all(int(channels) >= 1 for channels in match.groups()):
        return name
    if name in CIFAR_NAMES or LIBRARY_PATTERN.fullmatch(name):
        return name
    raise ValueError(_refusal(name))


def feature_dim(name: str) -> int | None:
    """D, the width of that architecture's penultimate feature; None for `torchvision:` and `timm:` names."""
    small = CNN_PATTERN.fullmatch(name)
    return _CNN_POSITIONS * int(small[2]) if small else _CIFAR_FEATURES.get(name)


def has_maps(name: str) -> bool:
    """Whether nets of that architecture give the maps of their stages; see `trainables.models.interface`."""
    return LIBRARY_PATTERN.fullmatch(name) is None


def is_packable(name: str) -> bool:
    """Whether several students of that architecture can train as one; see `trainables.packed_network`."""
    return name not in ("ShuffleV1", "ShuffleV2") and LIBRARY_PATTERN.fullmatch(name) is None


def is_known_to_draw_nothing(name: str) -> bool:
    """Whether networks of that architecture are known to draw no random numbers in training."""
    return LIBRARY_PATTERN.fullmatch(name) is None


def _refusal(name: str) -> str:
    known = (*CNN_EXAMPLES, *CIFAR_NAMES)
    forms = " (cnn_A_B: any channels A and B from 1 to 9999; also torchvision:NAME and timm:NAME)"
    # difflib takes resnet50 for a slip of resnet56 rather than of ResNet50.
    same_letters = {_letters(candidate): candidate for candidate in known}
    meant = FOREIGN_NAMES.get(name) or same_letters.get(_letters(name))
    if meant is not None:
        return f"unknown model {name!r}; did you mean {meant!r}? Known: {', '.join(known)}{forms}"
    return unknown_name("model", name, known) + forms


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())
