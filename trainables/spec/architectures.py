"""Architecture names for `build_model`; imports no torch, so plans are checked quickly."""

import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from trainables.spec.naming import unknown_name
from trainables.user_code.reference import is_canonical, looks_like_reference

# cnn_32_64: a small CNN for small images. The numbers are the two convolutions' channels.
CNN_PATTERN = re.compile(r"cnn_(\d{1,4})_(\d{1,4})")

CNN_EXAMPLES = ("cnn_3_4", "cnn_8_16", "cnn_32_64")

# Networks from the CIFAR distillation literature, by the names in the tables there.
LITERATURE_NAMES: Final[tuple[str, ...]] = (
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
# Residual networks with zero-padded shortcuts (option A), such as akamaster's for CIFAR-10.
ZERO_PAD_NAMES: Final = tuple(f"resnet{depth}a" for depth in (8, 14, 20, 32, 44, 56, 110))
CIFAR_NAMES: Final[tuple[str, ...]] = (*LITERATURE_NAMES, *ZERO_PAD_NAMES)

# Width of the penultimate feature, D.
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
_CNN_POSITIONS: Final = 4  # 2 × 2 positions in the last map reach the head

# Prefixes for other libraries' architectures, as in torchvision:resnet18 and timm:vit_tiny_patch16_224.
LIBRARY_PATTERN = re.compile(r"(torchvision|timm):([A-Za-z0-9_.\-]+)")

# resnet20+vgg8: an ensemble with two teachers.
_BETWEEN_MEMBERS: Final = "+"
MOST_TEACHERS: Final = 5  # records have a column for each

# bert_4_128: BERT with 4 layers and 128 hidden units, with fresh weights. bert:6: six of the teacher's layers.
BERT_PATTERN: Final = re.compile(r"bert_(\d{1,2})_(\d{1,4})")
LAYERS_PATTERN: Final = re.compile(r"bert:(\d{1,2})")
# Name on the Hugging Face Hub, as in bert-base-uncased and google/electra-small-discriminator.
_HUB_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]*(/[A-Za-z0-9][A-Za-z0-9._-]*)?")
_HIDDEN_MULTIPLE: Final = 32  # units in the smallest attention head

# Torchvision and timm model names without a meaning here, or with another meaning.
_TORCHVISION_FORM: Final = re.compile(
    r"resnet(18|34|50|101|152)|wide_resnet(50|101)_2|resnext(50_32x4d|101_32x8d|101_64x4d)|vgg(11|13|16|19)(_bn)?|"
    r"densenet(121|161|169|201)|mobilenet_v(2|3_small|3_large)|efficientnet_(b[0-7]|v2_[sml])|mnasnet\d_\d+|alexnet|"
    r"convnext_(tiny|small|base|large)|vit_([bl]_(16|32)|h_14)|swin(_v2)?_[tsb]|regnet_[xy]_\d+(_\d)?(mf|gf)|"
    r"shufflenet_v2_x\d_\d|maxvit_t"
)
_TIMM_FORM: Final = re.compile(
    r"(vit|deit|deit3|swin|swinv2|beit|mixer|eva)_.*_patch\d+.*|tf_.+|mobilenetv[1-4]_.+|convnextv2_.+|resnet\d+d|"
    r"mobilevit.*|[a-z0-9_]+\.[a-z0-9_]+_in(1|21|22)k.*"
)
_LIBRARY_FORMS: Final = {"torchvision": _TORCHVISION_FORM, "timm": _TIMM_FORM}

# Names in other code bases, and our names for the same networks.
FOREIGN_NAMES: Final[dict[str, str]] = {
    "mobile_half": "MobileNetV2",
    **{f"{name}_bn": name for name in LITERATURE_NAMES if name.startswith("vgg")},
}


def check_model_name(name: str) -> str:
    """Return `name` if `build_model` accepts it.

    For torchvision and timm models and user models, only the form of the name is checked.

    Raises:
        ValueError: the name is unknown; the message gives the nearest known name.
    """
    match = CNN_PATTERN.fullmatch(name)
    if match and all(int(channels) >= 1 for channels in match.groups()):
        return name
    if name in CIFAR_NAMES or LIBRARY_PATTERN.fullmatch(name) or is_canonical(name):
        return name
    if is_text_model_name(name):
        raise ValueError(f"model {name!r} reads text, and the dataset is of images: name one for images, as cnn_8_16")
    raise ValueError(_refusal(name))


def ensemble_members(name: str) -> tuple[str, ...]:
    """Return the architectures of a teacher ensemble, such as `resnet20+vgg8`; empty for a single network.

    A file or folder path is never an ensemble, because the path may contain a plus.
    """
    members = tuple(name.split(_BETWEEN_MEMBERS))
    return members if len(members) > 1 and all(map(_can_be_member, members)) else ()


def _can_be_member(name: str) -> bool:
    return is_canonical(name) or not ("/" in name or ".py:" in name)


def ensemble_name(members: Sequence[str]) -> str:
    """Return the name of a teacher ensemble."""
    return _BETWEEN_MEMBERS.join(members)


def check_teacher_name(name: str) -> str:
    """Return `name` if it names an image model or image model ensemble.

    Raises:
        ValueError: an architecture is unknown, or there are too many.
    """
    members = ensemble_members(name)
    if len(members) > MOST_TEACHERS:
        raise ValueError(f"teacher {name!r} has {len(members)} networks; an ensemble has at most {MOST_TEACHERS}")
    for each in members or (name,):
        check_model_name(each)
    return name


def check_text_model_name(name: str, *, student: bool = False) -> str:
    """Return `name` if it names a text model, without checking for an existing folder or Hub name.

    Args:
        name: `bert_L_H`, a folder in Hugging Face's layout, a name on the Hub, or, for a student, `bert:N`.
        student: whether the name is for a student.

    Raises:
        ValueError: the name is not allowed; the message lists the allowed forms.
    """
    small, layers = BERT_PATTERN.fullmatch(name), LAYERS_PATTERN.fullmatch(name)
    allowed = (
        "for text name bert_L_H (L layers, H hidden units in multiples of 32, such as bert_4_128), "
        + "bert:N (N of the teacher's layers), " * student
        + "a folder in Hugging Face's layout, or a name on its Hub, such as bert-base-uncased"
    )
    if small:
        if int(small[1]) < 1 or int(small[2]) < 1 or int(small[2]) % _HIDDEN_MULTIPLE:
            raise ValueError(f"model {name!r}: {allowed}")
        return name
    if layers:
        if not student or int(layers[1]) < 1:
            raise ValueError(f"model {name!r}: {allowed}")
        return name
    if _is_image_model(name) or not (is_folder_name(name) or _HUB_PATTERN.fullmatch(name)):
        raise ValueError(f"model {name!r}: {allowed}")
    return name


def layers_and_width(name: str) -> tuple[int, int | None] | None:
    """Return the layers and hidden units in a text model's name.

    The width is None for `bert:N`. The result is None for folders and Hub names.
    """
    small, layers = BERT_PATTERN.fullmatch(name), LAYERS_PATTERN.fullmatch(name)
    if small:
        return int(small[1]), int(small[2])
    return (int(layers[1]), None) if layers else None


def is_text_model_name(name: str) -> bool:
    """Return whether a name can only be a text model's: `bert_L_H` or `bert:N`."""
    return bool(BERT_PATTERN.fullmatch(name) or LAYERS_PATTERN.fullmatch(name))


def is_pretrained_text_name(name: str) -> bool:
    """Return whether a text model's name refers to weights in a folder or in the Hub cache."""
    return not is_text_model_name(name)


def is_folder_name(name: str) -> bool:
    """Return whether a text model's name is a path rather than a name on the Hub."""
    return name.startswith(("/", "./", "../", "~"))


def absolute_name(name: str) -> str:
    """Return a text model's name for processes with other working directories; folders become absolute paths."""
    folder = Path(name).expanduser()
    return (
        str(folder.absolute()) if is_folder_name(name) or (is_pretrained_text_name(name) and folder.is_dir()) else name
    )


def _is_image_model(name: str) -> bool:
    known = CNN_PATTERN.fullmatch(name) or LIBRARY_PATTERN.fullmatch(name) or is_canonical(name)
    return bool(known) or name in CIFAR_NAMES or name in FOREIGN_NAMES


def feature_dim(name: str) -> int | None:
    """Return the width D of an architecture's penultimate feature, or None for other libraries' and own models."""
    text = BERT_PATTERN.fullmatch(name)
    if text:
        return int(text[2])
    small = CNN_PATTERN.fullmatch(name)
    return _CNN_POSITIONS * int(small[2]) if small else _CIFAR_FEATURES.get(name)


def has_maps(name: str) -> bool:
    """Return whether an architecture provides stage maps; see `trainables.models.interface`.

    A user model may provide them. User models are checked before a study starts (`trainables.run.shape_check`).
    """
    return LIBRARY_PATTERN.fullmatch(name) is None


def is_model_code(text: str) -> bool:
    """Return whether a model's name means user code, as typed: `net.py:make`.

    Other texts with a colon mean a library model, even if misspelt, or some layers.
    """
    other = LAYERS_PATTERN.fullmatch(text) or (".py" not in text and _library_of(text) is not None)
    return not other and looks_like_reference(text)


def _library_of(text: str) -> str | None:
    """Return the library in a name such as `torchvision:resnet18`, even if misspelt."""
    library, colon, model = text.partition(":")
    near = difflib.get_close_matches(library, _LIBRARY_FORMS, n=1, cutoff=0.75) if colon and model else []
    return near[0] if near else None


def is_packable(name: str) -> bool:
    """Return whether an architecture's students can train as one network; see `trainables.packing.network`."""
    return (
        not is_text_model_name(name)
        and name not in ("ShuffleV1", "ShuffleV2")
        and LIBRARY_PATTERN.fullmatch(name) is None
        and not is_canonical(name)
    )


def is_known_to_draw_nothing(name: str) -> bool:
    """Return whether an architecture is known to use no random numbers in training, such as dropout."""
    return not (is_text_model_name(name) or LIBRARY_PATTERN.fullmatch(name) or is_canonical(name))


def _refusal(name: str) -> str:
    known = (*CNN_EXAMPLES, *CIFAR_NAMES)
    forms = " (cnn_A_B: any channels A and B from 1 to 9999; also torchvision:NAME, timm:NAME and FILE.py:NAME)"
    # difflib would suggest resnet56 for resnet50, rather than ResNet50.
    same_letters = {_letters(candidate): candidate for candidate in known}
    library = next((f"{kind}:{name}" for kind, form in _LIBRARY_FORMS.items() if form.fullmatch(name)), None)
    if near := _library_of(name):
        library = f"{near}:{name.partition(':')[2]}"
    meant = [each for each in (FOREIGN_NAMES.get(name) or same_letters.get(_letters(name)), library) if each]
    if meant:
        guess = " or ".join(map(repr, meant))
        return f"unknown model {name!r}; did you mean {guess}? Known: {', '.join(known)}{forms}"
    return unknown_name("model", name, known) + forms


def _letters(name: str) -> str:
    return re.sub(r"[^a-z0-9]", "", name.casefold())
