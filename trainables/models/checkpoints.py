"""Weights on disk: written as safetensors, read from those or from the literature's pickled checkpoints."""

import json
import os
import struct
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from trainables.models.layouts import MisfitError, Part, find_weights, head_name, name_some, tensor_dicts
from trainables.models.taken_weights import CheckpointError, TakenWeights
from trainables.models.torch_files import check_is_there, is_no_binary, read_torch_file
from trainables.storage.tensors import HEADER, StoredFileError, read_tensors, write_tensors

_LONGEST_HEADER = 100_000_000  # bytes, of a safetensors file


@dataclass(frozen=True)
class CheckpointInfo:
    """What a model file says of its weights.

    Args:
        architecture: name for `build_model`.
        num_classes: C.
        in_channels: channels of the images.
        mean: subtracted from each channel of images scaled to [0, 1].
        std: what each channel is divided by then.
        data_digest: of the dataset that it was trained on.
    """

    architecture: str
    num_classes: int
    in_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data_digest: str

    def to_metadata(self) -> dict[str, str]:
        """As strings: names as they are, numbers in JSON."""
        values = asdict(self).items()
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "CheckpointInfo":
        """The inverse of `to_metadata`; further entries are left alone.

        Raises:
            CheckpointError: for a missing or malformed entry.
        """
        try:
            return cls(
                architecture=metadata["architecture"],
                num_classes=int(metadata["num_classes"]),
                in_channels=int(metadata["in_channels"]),
                mean=tuple(map(float, json.loads(metadata["mean"]))),
                std=tuple(map(float, json.loads(metadata["std"]))),
                data_digest=metadata["data_digest"],
            )
        except (KeyError, ValueError, TypeError) as error:
            raise CheckpointError(
                f"a model file's metadata needs {', '.join(cls.__dataclass_fields__)}, and has "
                f"{dict(metadata)} ({type(error).__name__}: {error}). python -m trainables.teacher writes such a file"
            ) from error


def save_model(model: nn.Module, path: str | os.PathLike[str], *, metadata: Mapping[str, str]) -> None:
    """Writes the model's weights and buffers as safetensors with a checksum, whole or not at all.

    Args:
        model: on any device.
        path: ends in .safetensors; an existing file is replaced.
        metadata: stored in the file's header.

    Raises:
        CheckpointError: for another suffix.
    """
    target = Path(path)
    if target.suffix != ".safetensors":
        raise CheckpointError(f"models are saved as .safetensors files, not as {str(target)!r}")
    write_tensors(target, model.state_dict(), metadata)


def save_checkpoint(model: nn.Module, path: str | os.PathLike[str], info: CheckpointInfo) -> None:
    """`save_model` with the metadata that rebuilds the model."""
    save_model(model, path, metadata=info.to_metadata())


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """The metadata of a model file that we wrote; what is not a string in it comes as JSON.

    Raises:
        CheckpointError: for a file that is missing, damaged or of another kind.
    """
    check_is_there(Path(path))
    try:
        _, metadata = read_tensors(Path(path))
    except StoredFileError as error:
        raise CheckpointError(str(error)) from error
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}


def load_checkpoint(
    model: nn.Module, path: str | os.PathLike[str], *, part: Part = "student", wanted: str | None = None
) -> TakenWeights:
    """Fills `model` with the weights in a file: all of them, or the model stays as it was.

    A safetensors file is a bare state dict, verified if we wrote it. Any other is read as a torch checkpoint, without
    running code from it. Weights are found under any key, with or without a prefix such as `module.`, `_orig_mod.`,
    `model.` or, in mdistiller's distillers, `student.` and `teacher.`; see `trainables.models.layouts`. Nets of
    torchvision and timm have their weights as those libraries name them, or as ours do.

    Args:
        model: of the checkpoint's architecture, classes and input channels.
        path: the file.
        part: which half of a distiller's checkpoint is preferred where both fit.
        wanted: `raw`, `ema`, or the key of the weights in the file; if not given, raw weights before averages.

    Returns:
        Which weights were taken, and which others the file has.

    Raises:
        CheckpointError: for a file that is missing or damaged; for weights of another architecture or number of
            classes, naming the first keys that differ; for several sets of weights that fit and differ.
    """
    file = Path(path)
    content = _read(file)
    try:
        weights, taken = find_weights(content, model, part=part, wanted=wanted)
    except MisfitError as misfit:
        raise CheckpointError(f"{str(file)!r} does not fit the network: {_describe_misfit(misfit, model)}") from None
    except CheckpointError as error:
        raise CheckpointError(f"{str(file)!r}: {error}") from None
    expected = model.state_dict()
    model.load_state_dict({key: _as_needed(key, value, expected[key], file) for key, value in weights.items()})
    return taken


def likely_architecture(path: str | os.PathLike[str]) -> str | None:
    """The name of an architecture that weights in a file fit; None if none is known.

    Raises:
        CheckpointError: for a file that is missing, damaged or of another format.
    """
    from trainables.models.recognition import recognise

    return recognise(tensor_dicts(_read(Path(path))))


def _read(file: Path) -> object:
    check_is_there(file)
    return _load_safetensors(file) if _is_safetensors(file) else read_torch_file(file)


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a safetensors file that we wrote, which says of itself what it holds.

    Raises:
        CheckpointError: for a file that is missing, or is named .safetensors and is damaged.
    """
    file = Path(path)
    check_is_there(file)
    if not _is_safetensors(file):
        return False
    try:
        with safe_open(file, framework="pt") as opened:
            return HEADER in (opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{str(file)!r} is not a whole safetensors file: {error}") from error


def _is_safetensors(file: Path) -> bool:
    """Check the content, as files are renamed; go by the suffix if the content is damaged."""
    with file.open("rb") as stream:
        start = stream.read(9)
    if start.startswith((b"PK\x03\x04", b"\x80\x02")):  # a zip archive or a pickle
        return False
    if len(start) == 9 and start[8:] == b"{" and struct.unpack("<Q", start[:8])[0] <= _LONGEST_HEADER:
        return True
    # A pointer, a page or nothing under this name is described by the reader of other files.
    return file.suffix == ".safetensors" and not is_no_binary(file)


def _load_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(file)[0] if is_ours(file) else load_file(file)
    except (SafetensorError, StoredFileError, OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{str(file)!r} is not a whole safetensors file: {error}") from error


def _as_needed(key: str, value: Tensor, needed: Tensor, file: Path) -> Tensor:
    """One tensor in the type and layout of the network's own.

    Raises:
        CheckpointError: it has no values, no plain ones, or infinite or undefined ones.
    """
    if value.is_meta:
        raise CheckpointError(
            f"{str(file)!r} has only the shape of {key}, not its values (a meta tensor): fetch it again"
        )
    if value.is_quantized or (needed.is_floating_point() and not (value.is_floating_point() or value.is_complex())):
        raise CheckpointError(
            f"{str(file)!r} has quantised weights: {key} is {value.dtype}. Give the checkpoint from before quantisation"
        )
    if value.is_complex():
        raise CheckpointError(f"{str(file)!r} has complex weights: {key} is {value.dtype}, and real ones are needed")
    dense = value.detach() if value.layout == torch.strided else value.detach().to_dense()
    converted = dense.to(needed.dtype)
    if needed.is_floating_point() and not converted.isfinite().all():
        raise CheckpointError(
            f"{str(file)!r} has infinite or undefined weights in {key}: its training diverged, take an earlier "
            "checkpoint"
        )
    return converted


def _describe_misfit(misfit: MisfitError, model: nn.Module) -> str:
    expected, weights = model.state_dict(), misfit.weights
    missing, unexpected, reshaped = misfit.difference
    problems = []
    if missing:
        problems.append(f"it lacks {name_some(missing)}")
    if unexpected:
        problems.append(f"it has besides {name_some(unexpected)}")
    if reshaped:
        shapes = [f"{key} {tuple(weights[key].shape)} for {tuple(expected[key].shape)}" for key in reshaped]
        problems.append(f"it has {name_some(shapes)}")
    return f"{'; '.join(problems)}. {_advice(misfit, model, expected)}"


def _advice(misfit: MisfitError, model: nn.Module, expected: Mapping[str, Tensor]) -> str:
    """Say how to proceed, given the keys that differ and the tensors of other shapes."""
    head, sizes = head_name(model), {}
    another = bool(misfit.difference.missing or misfit.difference.unexpected)
    for key in misfit.difference.reshaped:
        found, needed = misfit.weights[key].shape, expected[key].shape
        if len(found) == len(needed) and key.rpartition(".")[0] == head and found[1:] == needed[1:]:
            sizes["classes"] = (found[0], needed[0])
        elif len(found) == len(needed) == 4 and (found[0], *found[2:]) == (needed[0], *needed[2:]):
            sizes["image channels"] = (found[1], needed[1])
        else:
            another = True
    if not another:
        texts = [f"for {found} {what}, where {needed} are needed" for what, (found, needed) in sizes.items()]
        return (
            f"It is of this architecture, but {' and '.join(texts)}: give a checkpoint that was trained on such data, "
            "or study the data of this one (--dataset)"
        )
    from trainables.models.recognition import recognise

    name = recognise(misfit.candidates)
    if name is None:
        return (
            "It is of another architecture, and no known architecture fits it: name it if it is one of timm's "
            "(--teacher timm:NAME), or leave out --teacher-checkpoint, and the study trains a teacher"
        )
    return f"It is of another architecture: its weights fit --teacher {name}"
