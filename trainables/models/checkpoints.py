"""Save weights as safetensors, and load weights from safetensors or from the literature's pickled checkpoints."""

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
from trainables.storage.atomic import StoredFileError
from trainables.storage.tensors import HEADER, read_tensors, write_tensors

_LONGEST_HEADER = 100_000_000  # bytes, in a safetensors file


@dataclass(frozen=True)
class CheckpointInfo:
    """Weights metadata in a model file.

    Args:
        architecture: name for `build_model`.
        num_classes: number of classes, C.
        in_channels: image channels.
        mean: mean per channel, subtracted from images scaled to [0, 1].
        std: divisor per channel after the subtraction.
        data_digest: digest of the training dataset.
    """

    architecture: str
    num_classes: int
    in_channels: int
    mean: tuple[float, ...]
    std: tuple[float, ...]
    data_digest: str

    def to_metadata(self) -> dict[str, str]:
        """Convert to strings: strings unchanged, numbers as JSON."""
        values = asdict(self).items()
        return {name: value if isinstance(value, str) else json.dumps(value) for name, value in values}

    @classmethod
    def from_metadata(cls, metadata: Mapping[str, str]) -> "CheckpointInfo":
        """Invert `to_metadata`, ignoring additional entries.

        Raises:
            CheckpointError: an entry is missing or malformed.
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
                f"a model file's metadata needs {', '.join(cls.__dataclass_fields__)}, but has {dict(metadata)} "
                f"({type(error).__name__}: {error}). python -m trainables.teacher writes such a file"
            ) from error


def save_model(model: nn.Module, path: str | os.PathLike[str], *, metadata: Mapping[str, str]) -> None:
    """Write a model's weights and buffers atomically as safetensors with a checksum.

    Args:
        model: model on any device.
        path: path with suffix .safetensors; an existing file is replaced.
        metadata: file header entries.

    Raises:
        CheckpointError: the path has another suffix.
    """
    target = Path(path)
    if target.suffix != ".safetensors":
        raise CheckpointError(f"models are saved as .safetensors files, not as {str(target)!r}")
    write_tensors(target, model.state_dict(), metadata)


def read_metadata(path: str | os.PathLike[str]) -> dict[str, str]:
    """Read the metadata from a model file written here; non-string values are returned as JSON.

    Raises:
        CheckpointError: the file is missing, damaged or of another format.
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
    """Load the weights in a file into `model`, which stays unchanged on an error.

    A safetensors file is a plain state dict, verified by checksum if written here. Any other file is read as a torch
    checkpoint, without running code from it. Weights are found under any key, with or without a prefix such as
    `module.`, `_orig_mod.`, `model.` or, in mdistiller's distillers, `student.` and `teacher.`; see
    `trainables.models.layouts`. Weights of torchvision and timm models may use the library's key names or ours.

    Args:
        model: model with the checkpoint's architecture, number of classes and input channels.
        path: file path.
        part: preferred half of a distiller's checkpoint, if both fit.
        wanted: `raw`, `ema`, or the key of the weights in the file. If None, raw weights are preferred to averages.

    Returns:
        The loaded weights, and the other weights in the file.

    Raises:
        CheckpointError: the file is missing or damaged; the weights belong to another architecture or number of classes
            (the message names the first differing keys); or several different weight sets fit.
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
    """Return the name of a known architecture fitting the weights in a file, or None.

    Raises:
        CheckpointError: the file is missing, damaged or of another format.
    """
    from trainables.models.recognition import recognise

    return recognise(tensor_dicts(_read(Path(path))))


def _read(file: Path) -> object:
    check_is_there(file)
    return _load_safetensors(file) if _is_safetensors(file) else read_torch_file(file)


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Return whether a file is a safetensors file with our metadata header.

    Raises:
        CheckpointError: the file is missing, or is a damaged .safetensors file.
    """
    file = Path(path)
    check_is_there(file)
    if not _is_safetensors(file):
        return False
    try:
        with safe_open(file, framework="pt") as opened:
            return HEADER in (opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{str(file)!r} is not a complete safetensors file: {error}") from error


def _is_safetensors(file: Path) -> bool:
    """Return whether a file is safetensors, by content (files get renamed), or by suffix if the content is damaged."""
    with file.open("rb") as stream:
        start = stream.read(9)
    if start.startswith((b"PK\x03\x04", b"\x80\x02")):  # a zip archive or a pickle
        return False
    if len(start) == 9 and start[8:] == b"{" and struct.unpack("<Q", start[:8])[0] <= _LONGEST_HEADER:
        return True
    # Pointers, web pages and empty files with this suffix are left to the other reader, which describes them.
    return file.suffix == ".safetensors" and not is_no_binary(file)


def _load_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(file)[0] if is_ours(file) else load_file(file)
    except (SafetensorError, StoredFileError, OSError, ValueError, RuntimeError, KeyError, AttributeError) as error:
        raise CheckpointError(f"{str(file)!r} is not a complete safetensors file: {error}") from error


def _as_needed(key: str, value: Tensor, needed: Tensor, file: Path) -> Tensor:
    """Convert a tensor to the network's dtype and layout.

    Raises:
        CheckpointError: the tensor has no values (meta), is quantised or complex, or is not finite.
    """
    if value.is_meta:
        raise CheckpointError(
            f"{str(file)!r} has only the shape of {key}, without values (a meta tensor): download the file again"
        )
    if value.is_quantized or (needed.is_floating_point() and not (value.is_floating_point() or value.is_complex())):
        raise CheckpointError(
            f"{str(file)!r} has quantised weights: {key} is {value.dtype}. Give the unquantised checkpoint"
        )
    if value.is_complex():
        raise CheckpointError(f"{str(file)!r} has complex weights: {key} is {value.dtype}, but weights must be real")
    dense = value.detach() if value.layout == torch.strided else value.detach().to_dense()
    converted = dense.to(needed.dtype)
    if needed.is_floating_point() and not converted.isfinite().all():
        raise CheckpointError(
            f"{str(file)!r} has infinite or NaN weights in {key}: its training diverged, give an earlier checkpoint"
        )
    return converted


def _describe_misfit(misfit: MisfitError, model: nn.Module) -> str:
    expected, weights = model.state_dict(), misfit.weights
    missing, unexpected, reshaped = misfit.difference
    problems = []
    if missing:
        problems.append(f"it lacks {name_some(missing)}")
    if unexpected:
        problems.append(f"it has in addition {name_some(unexpected)}")
    if reshaped:
        shapes = [
            f"{key} of shape {tuple(weights[key].shape)} instead of {tuple(expected[key].shape)}" for key in reshaped
        ]
        problems.append(f"it has {name_some(shapes)}")
    return f"{'; '.join(problems)}. {_advice(misfit, model, expected)}"


def _advice(misfit: MisfitError, model: nn.Module, expected: Mapping[str, Tensor]) -> str:
    """Return advice on how to proceed, from the differing keys and shapes."""
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
        texts = [f"{found} {what} instead of {needed}" for what, (found, needed) in sizes.items()]
        return (
            f"The architecture fits, but the checkpoint has {' and '.join(texts)}: give a checkpoint that was "
            "trained on such data, or study the data that it was trained on (--dataset)"
        )
    from trainables.models.recognition import recognise

    name = recognise(misfit.candidates)
    if name is None:
        return (
            "It has another architecture, and no known architecture fits: name the architecture if it is one of timm's "
            "or your own (--teacher timm:NAME, --teacher FILE.py:NAME), or leave out --teacher-checkpoint to let the "
            "study train a teacher"
        )
    return f"It has another architecture: the weights fit --teacher {name}"
