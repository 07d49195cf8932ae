"""Weights on disk: written as safetensors, read from those or from the literature's pickled checkpoints.

Pickles run code when they are read, so `torch.load` is called with `weights_only=True` and nothing else.
"""

import json
import os
import pickle
import re
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from trainables.models.interface import DistillationModel
from trainables.storage import HEADER, StoredFileError, read_tensors, write_tensors

Part = Literal["student", "teacher"]

# The header entry by which our files are told from other people's safetensors, and verified.
# Under which key training scripts store the weights beside epoch, accuracy and optimiser state.
WEIGHT_KEYS = ("model", "state_dict", "net")
# What DataParallel and torch.compile put before every key.
WRAPPER_PREFIXES = ("module.", "_orig_mod.")
# How many keys an error names of each kind.
NAMED_KEYS = 3


class CheckpointError(ValueError):
    """A checkpoint that cannot be read, or that is of another model; the message says what to do."""


class _Ignored:
    """Stands in for what training scripts pickle beside the weights; keeps and does nothing."""

    def __init__(self, *_args: object) -> None:
        pass

    def __setstate__(self, _state: object) -> None:
        pass


# RepDistiller's and mdistiller's learning rates are numpy scalars once decayed, and the former's last
# checkpoint holds its parsed arguments: weights_only refuses the whole file for them. Their names are bound
# to an inert class, so that neither numpy nor argparse takes part in reading.
IGNORED_GLOBALS = (
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.ndarray",
    "numpy.dtype",
    "argparse.Namespace",
)


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
                f"{dict(metadata)} ({type(error).__name__}: {error}). Write it with save_checkpoint"
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
    _check_file(Path(path))
    try:
        _, metadata = read_tensors(Path(path))
    except StoredFileError as error:
        raise CheckpointError(str(error)) from error
    return {name: value if isinstance(value, str) else json.dumps(value) for name, value in metadata.items()}


def load_checkpoint(model: nn.Module, path: str | os.PathLike[str], *, part: Part = "student") -> None:
    """Fills `model` with the weights in a file: all of them, or the model stays as it was.

    A .safetensors file is a bare state dict, verified if we wrote it. Any other is read as a torch
    checkpoint: a bare state dict or one under `model`, `state_dict` or `net`, its keys with or without
    `module.`, or inside mdistiller's distiller, where the keys of student and teacher begin with `student.`
    and `teacher.`. Nets of torchvision and timm have their weights as those libraries name them, or as ours do.

    Args:
        model: of the checkpoint's architecture, classes and input channels.
        path: the file.
        part: which half of a distiller's checkpoint is meant.

    Raises:
        CheckpointError: for a file that is missing, damaged or holds more than weights; and for weights of
            another architecture or number of classes, naming the first keys that differ.
    """
    file = Path(path)
    _check_file(file)
    ours = file.suffix == ".safetensors"
    weights = _load_safetensors(file) if ours else _unwrap(_load_pickle(file), file, part)
    expected = model.state_dict()
    if isinstance(model, DistillationModel) and not weights.keys() & expected.keys():
        weights = {model.own_key(key): value for key, value in weights.items()}
    _add_missing_counters(weights, expected)
    _check_fit(weights, expected, file)
    model.load_state_dict(weights)


def _check_file(file: Path) -> None:
    if not file.is_file():
        raise CheckpointError(f"there is no checkpoint file {str(file)!r}")


def is_ours(path: str | os.PathLike[str]) -> bool:
    """Whether a file is a safetensors file that we wrote, which says of itself what it holds.

    Raises:
        CheckpointError: for a file that is missing, or is named .safetensors and is damaged.
    """
    file = Path(path)
    _check_file(file)
    if file.suffix != ".safetensors":
        return False
    try:
        with safe_open(file, framework="pt") as opened:
            return HEADER in (opened.metadata() or {})
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{str(file)!r} is not a whole safetensors file: {error}") from error


def _load_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return read_tensors(file)[0] if is_ours(file) else load_file(file)
    except (SafetensorError, StoredFileError) as error:
        raise CheckpointError(f"{str(file)!r} is not a whole safetensors file: {error}") from error


def _load_pickle(file: Path) -> object:
    """What the file holds, read without running code from it."""
    ignored: list[Any] = [(_Ignored, name) for name in IGNORED_GLOBALS]
    try:
        with torch.serialization.safe_globals(ignored):
            return torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        refused = re.search(r"[Uu]nsupported (?:global: )?GLOBAL (\S+)", str(error))
        if refused is None:
            raise _damaged(file, error) from error
        raise CheckpointError(
            f"{str(file)!r} holds {refused[1]} beside its weights, and only weights are read, as anything "
            "else may run code. If you trust who made it, convert it where it can do no harm: "
            'torch.save(torch.load(PATH, weights_only=False)["model"], NEW_PATH), with the key of its weights'
        ) from error
    # torch.load has no error of its own for a file that is not its format.
    except (RuntimeError, EOFError, OSError, LookupError, ValueError, TypeError, AttributeError) as error:
        raise _damaged(file, error) from error


def _damaged(file: Path, error: Exception) -> CheckpointError:
    reason = str(error).partition("\n")[0]
    return CheckpointError(
        f"{str(file)!r} is damaged or is no torch checkpoint ({type(error).__name__}: {reason}). "
        "Fetch it again, or give a file that torch.save wrote"
    )


def _unwrap(content: object, file: Path, part: Part) -> dict[str, Tensor]:
    """The state dict inside whatever layout a training script chose."""
    for key in WEIGHT_KEYS:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if not isinstance(content, Mapping):
        raise CheckpointError(f"{str(file)!r} holds a {type(content).__name__} where a state dict is needed")
    weights = {key: value for key, value in content.items() if isinstance(value, Tensor)}
    if not weights:
        raise CheckpointError(
            f"{str(file)!r} has no weights at its top level nor under {', '.join(WEIGHT_KEYS)}; "
            f"it has {_name_some(map(str, content))}"
        )
    weights = _strip_wrappers(weights)
    if any(key.startswith("student.") for key in weights):
        prefix = f"{part}."
        weights = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
        if not weights:
            raise CheckpointError(f"{str(file)!r} has a student but no {part}: leave out part={part!r}")
        weights = _strip_wrappers(weights)
    return weights


def _strip_wrappers(weights: dict[str, Tensor]) -> dict[str, Tensor]:
    for prefix in WRAPPER_PREFIXES * 2:
        if all(key.startswith(prefix) for key in weights):
            weights = {key.removeprefix(prefix): value for key, value in weights.items()}
    return weights


def _add_missing_counters(weights: dict[str, Tensor], expected: Mapping[str, Tensor]) -> None:
    """Checkpoints older than torch 0.4.1 lack the batch counters, which nothing reads at a fixed momentum."""
    for key, value in expected.items():
        if key.endswith("num_batches_tracked"):
            weights.setdefault(key, value)


def _check_fit(weights: Mapping[str, Tensor], expected: Mapping[str, Tensor], file: Path) -> None:
    missing = [key for key in expected if key not in weights]
    unexpected = [key for key in weights if key not in expected]
    reshaped = [key for key in expected if key in weights and weights[key].shape != expected[key].shape]
    problems = []
    if missing:
        problems.append(f"it lacks {_name_some(missing)}")
    if unexpected:
        problems.append(f"it has besides {_name_some(unexpected)}")
    if reshaped:
        shapes = (f"{key} {tuple(weights[key].shape)} for {tuple(expected[key].shape)}" for key in reshaped)
        problems.append(f"it has {_name_some(shapes)}")
    if problems:
        advice = _advice(missing + unexpected, [(weights[key], expected[key]) for key in reshaped])
        raise CheckpointError(f"{str(file)!r} does not fit the model: {'; '.join(problems)}. {advice}")
    bad = [key for key, value in weights.items() if value.is_floating_point() and not value.isfinite().all()]
    if bad:
        raise CheckpointError(
            f"{str(file)!r} has infinite or undefined weights in {_name_some(bad)}: its training diverged, "
            "take an earlier checkpoint"
        )


def _advice(other_keys: list[str], reshaped: list[tuple[Tensor, Tensor]]) -> str:
    """What to change, from the keys that differ and the (found, needed) tensors of other shapes."""
    sizes = {}
    for found, needed in reshaped:
        if found.ndim == needed.ndim <= 2 and found.shape[1:] == needed.shape[1:]:
            sizes["num_classes"] = found.shape[0]
        elif found.ndim == needed.ndim == 4 and found[:, 0].shape == needed[:, 0].shape:
            sizes["in_channels"] = found.shape[1]
        else:
            other_keys = ["a layer of another size"]
    if other_keys:
        return "It is of another architecture: build that one (a distiller's teacher: part='teacher')"
    needs = ", ".join(f"{name}={size}" for name, size in sizes.items())
    return f"It is for other classes or images: build the model with {needs}"


def _name_some(keys: Iterable[str]) -> str:
    keys = list(keys)
    more = f" and {len(keys) - NAMED_KEYS} more" if len(keys) > NAMED_KEYS else ""
    return ", ".join(keys[:NAMED_KEYS]) + more
