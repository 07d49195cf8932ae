"""Given teachers: read an existing checkpoint, check it against the data and describe it.

This project's checkpoints state the architecture and the image normalisation. A checkpoint of another code base
contains only weights, so the user must name the architecture, and the normalisation must be known.
"""

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor

from trainables.display.numbers import counted
from trainables.models import (
    CheckpointError,
    CheckpointInfo,
    DistillationModel,
    build_model,
    load_checkpoint,
    read_metadata,
)
from trainables.models.checkpoints import is_ours, likely_architecture
from trainables.models.taken_weights import TakenWeights
from trainables.spec.architectures import LIBRARY_PATTERN, ZERO_PAD_NAMES
from trainables.storage.tensors import tensors_digest
from trainables.user_code.reference import canonical, is_canonical

GIVEN_FORMAT: Final = "pesfkd-given-teacher-1"
_IDENTITY: Final = ("format", "architecture", "num_classes", "in_channels", "mean", "std", "weights")
_IDENTITY_OF_TEXT: Final = ("model", "tokeniser")
UNKNOWN_DATA: Final = "unknown"


class Normalisation(NamedTuple):
    """Normalisation of a model's input images, for pixels in [0, 1].

    Args:
        mean: mean per channel.
        std: standard deviation per channel.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]


# Normalisation for training teachers in RepDistiller and mdistiller, by dataset. Other datasets have no usual
# normalisation.
_USUAL: Final[dict[str, Normalisation]] = {
    "cifar100": Normalisation((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761)),
}
# Normalisation for torchvision and timm models, unless they were trained with another one.
_IMAGENET: Final = Normalisation((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
NORMALISATION_BOUNDS: Final = (
    "for pixels in [0, 1], means must be between -10 and 10 and standard deviations between 0.001 and 10"
)


def is_normalisation(normalisation: Normalisation) -> bool:
    """Return whether all numbers are finite and within `NORMALISATION_BOUNDS`."""
    means = all(math.isfinite(value) and -10 < value < 10 for value in normalisation.mean)
    return means and all(0.001 <= value < 10 for value in normalisation.std)


class DataShape(NamedTuple):
    """Sample and label shape in an image dataset.

    Args:
        dataset: canonical name.
        num_classes: C.
        in_channels: number of image channels.
        image_size: height and width in pixels.
    """

    dataset: str
    num_classes: int
    in_channels: int
    image_size: int


@dataclass(frozen=True)
class GivenTeacher:
    """Teacher from a checkpoint, in the form stored by studies.

    Args:
        identity: architecture, classes, channels, normalisation and digest of the weights.
        weights: tensors by name.
        data_digest: digest of the training data, or `UNKNOWN_DATA` if not stated in the checkpoint.
        tokeniser: content of a text teacher's tokenizer.json.
        classes: description of the mapping from the model's classes to the task's classes, for Hugging Face's layout.
        taken: loaded set of weights in the file; None for a text teacher.
    """

    identity: dict[str, Any]
    weights: dict[str, Tensor]
    data_digest: str
    tokeniser: str | None = None
    classes: str = ""
    taken: TakenWeights | None = None

    @property
    def digest(self) -> str:
        """Sixteen hex digits for the identity."""
        return identity_digest(self.identity)

    @property
    def normalisation(self) -> Normalisation:
        """Normalisation used for training the teacher."""
        return Normalisation(tuple(self.identity["mean"]), tuple(self.identity["std"]))


def identity_digest(metadata: Mapping[str, Any]) -> str:
    """Return sixteen hex digits for the identity of a stored given teacher."""
    names = (*_IDENTITY, *_IDENTITY_OF_TEXT) if "model" in metadata else _IDENTITY
    content = json.dumps({name: metadata.get(name) for name in names}, sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def usual_normalisation(dataset: str, architecture: str) -> Normalisation | None:
    """Return a checkpoint's most likely normalisation for the dataset and architecture, or None if unknown."""
    if LIBRARY_PATTERN.fullmatch(architecture):
        return _IMAGENET
    if architecture in ZERO_PAD_NAMES and dataset == "cifar10":
        return _IMAGENET  # normalisation in pytorch_resnet_cifar10
    return _USUAL.get(dataset)


def read_given_teacher(
    path: Path,
    shape: DataShape,
    *,
    architecture: str | None = None,
    normalisation: Normalisation | None = None,
    weights: str | None = None,
) -> GivenTeacher:
    """Read a checkpoint as a dataset's teacher.

    Args:
        path: safetensors file of this project, or weights of another code base as safetensors or torch checkpoint. No
            code in the file is executed.
        shape: data shape.
        architecture: architecture name. Required if the checkpoint does not state it, otherwise checked.
        normalisation: normalisation for the training images, if the checkpoint does not state it. The default is the
            usual one for the dataset and architecture. Must be None for a checkpoint of this project.
        weights: set of weights in the file: `raw`, `ema`, or the set's key. By default, raw weights are preferred to
            averages.

    Raises:
        CheckpointError: the file is missing or damaged; the file has another architecture, other classes or other
            images than requested; or information is given by neither the file nor the arguments.
    """
    if ours := is_ours(path):
        info = CheckpointInfo.from_metadata(metadata := read_metadata(path))
        if is_canonical(info.architecture):
            info = replace(info, architecture=_own_architecture(path, info.architecture, architecture))
        _check_metadata(path, info, shape, architecture, normalisation)
        if metadata.get("image_size", str(shape.image_size)) != str(shape.image_size):
            raise CheckpointError(
                f"{path} is a teacher for images of {metadata['image_size']} x {metadata['image_size']} pixels, but "
                f"{shape.dataset} has {shape.image_size} x {shape.image_size}: give a checkpoint that was trained on "
                "such images"
            )
    else:
        info = CheckpointInfo(
            _required_architecture(path, architecture),
            shape.num_classes,
            shape.in_channels,
            mean=(),
            std=(),
            data_digest=UNKNOWN_DATA,
        )
    model = build_model(info.architecture, num_classes=info.num_classes, in_channels=info.in_channels)
    try:
        taken = load_checkpoint(model, path, part="teacher", wanted=weights)
    except CheckpointError as error:
        raise CheckpointError(
            f"{error}. Needed: {info.architecture} for {shape.dataset}, which has {shape.num_classes} classes and "
            f"images of {shape.in_channels} x {shape.image_size} x {shape.image_size}"
        ) from error
    known = Normalisation(info.mean, info.std)
    if not ours:
        known = normalisation or _assumed_normalisation(path, shape, info.architecture)
    _check_normalisation(path, known, shape)
    _check_logits(model, path, shape)
    identity = {
        "format": GIVEN_FORMAT,
        "architecture": info.architecture,
        "num_classes": info.num_classes,
        "in_channels": info.in_channels,
        "mean": list(known.mean),
        "std": list(known.std),
        "weights": tensors_digest(model.state_dict()),
    }
    return GivenTeacher(identity, model.state_dict(), info.data_digest, taken=taken)


def _check_metadata(
    path: Path,
    info: CheckpointInfo,
    shape: DataShape,
    architecture: str | None,
    normalisation: Normalisation | None,
) -> None:
    if normalisation is not None:
        raise CheckpointError(
            f"{path} contains the normalisation of its training images: leave out --teacher-normalisation"
        )
    for what, found, wanted in (
        ("architecture", info.architecture, architecture or info.architecture),
        ("number of classes", info.num_classes, shape.num_classes),
        ("number of image channels", info.in_channels, shape.in_channels),
    ):
        if found != wanted:
            raise CheckpointError(
                f"{path}: the {what} is {found!r}, but {wanted!r} is needed"
                + (": leave out --teacher, or give another file" if what == "architecture" else "")
                + ("" if what == "architecture" else f" for {shape.dataset}: give a checkpoint of such a teacher")
            )


def _own_architecture(path: Path, found: str, architecture: str | None) -> str:
    """Return the network to load for a user network's checkpoint.

    Code is executed only if named by the user. Reading a checkpoint thus never executes code. The named code may be
    another version, or the same network in another place: all weights must fit, and the teacher gets the given name.

    Args:
        path: the checkpoint.
        found: canonical name in the checkpoint.
        architecture: network given by the user.
    """
    if architecture is not None and is_canonical(architecture):
        return architecture
    own = canonical(found)
    copy = path.parent / "code" / own.digest / own.title
    place = f"{copy}:{own.name}" if copy.is_file() else f"{own.title}:{own.name}"
    raise CheckpointError(
        f"{path} was trained with code of your own, {found}, and code is used only if you name it: give --teacher "
        f"{place}"
    )


def _required_architecture(path: Path, architecture: str | None) -> str:
    """Return the architecture given by the user, for weights without a stated architecture."""
    if architecture is not None:
        return architecture
    likely = likely_architecture(path)
    raise CheckpointError(
        f"{path} does not state its architecture: name it (--teacher MODEL)"
        + (f"; the weights fit --teacher {likely}" if likely else "")
    )


def _assumed_normalisation(path: Path, shape: DataShape, architecture: str) -> Normalisation:
    usual = usual_normalisation(shape.dataset, architecture)
    if usual is None or len(usual.mean) != shape.in_channels:
        raise CheckpointError(
            f"{path} does not state the normalisation of its training images, and {shape.dataset} has no usual "
            "one: give it (--teacher-normalisation MEANS/STDS, such as 0.5,0.5,0.5/0.25,0.25,0.25)"
        )
    return usual


def _check_normalisation(path: Path, normalisation: Normalisation, shape: DataShape) -> None:
    """Check that there is one finite mean and one positive standard deviation per channel, for pixels in [0, 1]."""
    mean, std = normalisation
    if {len(mean), len(std)} != {shape.in_channels}:
        raise CheckpointError(
            f"{path}: the normalisation has {len(mean)} means and {len(std)} standard deviations, but "
            f"{shape.dataset} has {counted(shape.in_channels, 'channel')}: give one of each per channel"
        )
    if not is_normalisation(normalisation):
        raise CheckpointError(f"{path}: the normalisation is {mean} / {std}: {NORMALISATION_BOUNDS}")


@torch.no_grad()
def _check_logits(model: DistillationModel, path: Path, shape: DataShape) -> None:
    """Check that the model accepts images of this size and gives finite logits. Some architectures need other sizes."""
    images = torch.zeros(2, shape.in_channels, shape.image_size, shape.image_size)
    try:
        logits = model.eval()(images)
    except (RuntimeError, ValueError, AssertionError) as error:
        raise CheckpointError(
            f"{path}: this network cannot take the images of {shape.dataset}, {shape.in_channels} x "
            f"{shape.image_size} x {shape.image_size}: {error}"
        ) from error
    assert logits.shape == (2, shape.num_classes)
    if not logits.isfinite().all():
        raise CheckpointError(f"{path}: the logits are not finite, even for black images: give another checkpoint")
