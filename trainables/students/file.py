"""Trained student in a file, and loading it as a network or as an MLflow `pyfunc` model.

The file is safetensors with a checksum. The metadata describe how to build the network and prepare inputs. The file
contains no code, except the sources of a user network. Loading the file executes these sources, so load only trusted
files. This module does not import MLflow: MLflow calls `_load_pyfunc` in the loader module named by a model.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from trainables.batches.images import EpochBatches
from trainables.data.views import Normaliser
from trainables.models import CheckpointError, CheckpointInfo, build_model, load_checkpoint, read_metadata, save_model
from trainables.models.interface import DistillationModel
from trainables.run.run import DistillationRun
from trainables.storage.atomic import StoredFileError
from trainables.storage.tensors import read_tensors, write_tensors
from trainables.teacher.card import TOKENISER
from trainables.teacher.files import MODEL, described
from trainables.teacher.given_text import tokeniser_of
from trainables.user_code.loading import remember_json, sources_of
from trainables.user_code.reference import is_canonical

# Allowed logit difference between two machines or libraries, used as absolute and as relative tolerance.
LOGITS_TOLERANCE: Final = 1e-4
# Metadata key for the class names, in JSON.
CLASS_NAMES: Final = "class_names"
# Metadata key for the sources of a user network, in JSON.
USER_CODE: Final = "user_code"
_EXAMPLES: Final = 2
_ROWS: Final = 2  # sentence rows: token ids and segment ids
_BATCH: Final = 512


@dataclass(frozen=True)
class Student:
    """Trained student, ready for prediction.

    Args:
        model: the network, in eval mode.
        info: architecture and image normalisation.
        trial: config of the student's trial, in JSON.
        about: further metadata of a text student, both entries in JSON: `model`, the configuration of the network, and
            `tokeniser`, the content of the tokenizer.json for the token ids.
        class_names: class names in logit order; empty if the file has none, as in files of
            earlier versions.
    """

    model: DistillationModel
    info: CheckpointInfo
    trial: str
    about: Mapping[str, str] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """Return the logits (B, C), float32, for images (B, channels, H, W), uint8, or sentences (B, 2, L), int32.

        Raises:
            ValueError: if the input's dtype, number of channels or shape is wrong.
        """
        if MODEL in self.about:
            return self._of_sentences(images)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != self.info.in_channels:
            raise ValueError(
                f"this student takes uint8 images (B, {self.info.in_channels}, H, W) without normalisation, not "
                f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
            )
        normalise = Normaliser(self.info.mean, self.info.std, torch.device("cpu"))
        return torch.cat([self.model(normalise(each)) for each in images.split(_BATCH)])

    def _of_sentences(self, inputs: Tensor) -> Tensor:
        if inputs.is_floating_point() or inputs.ndim != 3 or inputs.shape[1] != _ROWS:
            raise ValueError(
                "this student takes sentences (B, 2, L), int32: token ids, padded with 0, and segment ids; not "
                f"{str(inputs.dtype).removeprefix('torch.')} {tuple(inputs.shape)}"
            )
        return torch.cat([self.model(each) for each in inputs.int().split(_BATCH)])

    def predict(self, model_input: NDArray[np.integer], params: dict[str, Any] | None = None) -> NDArray[np.float32]:  # noqa: ARG002
        """Return `logits` through MLflow's `pyfunc` interface."""
        logits: NDArray[np.float32] = self.logits(torch.from_numpy(np.array(model_input))).numpy()
        return logits


@dataclass(frozen=True)
class KeptStudent:
    """Student, an example, and the student's logits for the example in the trial.

    Args:
        student: the student as read back.
        images: (2, channels, H, W), uint8, or (2, 2, L), int32, from the validation split.
        logits: (2, C), float32, the example's logits when the student was saved.
    """

    student: Student
    images: Tensor
    logits: Tensor


def keep_student(run: DistillationRun, path: Path) -> None:
    """Save a finished trial's student and, in a second file, two validation samples with the student's logits.

    Args:
        run: the trial.
        path: path with the ending .safetensors; an existing file is replaced.

    Raises:
        OSError: if a file cannot be written.
    """
    data = run.dataset
    info = CheckpointInfo(run.config.student, data.num_classes, data.info.channels, data.mean, data.std, data.digest)
    about = {name: each if isinstance(each, str) else json.dumps(each) for name, each in described(run.student).items()}
    if about:
        about[TOKENISER] = tokeniser_of(data)
    if data.info.class_names:
        about[CLASS_NAMES] = json.dumps(data.info.class_names)
    if is_canonical(run.config.student):
        about[USER_CODE] = json.dumps(sources_of(run.config.student).to_json())
    save_model(run.student, path, metadata={**info.to_metadata(), "trial": run.config.model_dump_json(), **about})
    if isinstance(run.batches, EpochBatches):
        images = data.validation.images[:_EXAMPLES].cpu().contiguous()
        inputs = run.batches.normalise(images.to(run.device))
    else:
        inputs = next(run.evaluation_batches(data.validation))[:_EXAMPLES]
        images = inputs.cpu().contiguous()
    run.student.eval()
    with torch.no_grad():
        logits = run.student(inputs)
    write_tensors(example_path(path), {"images": images, "logits": logits.float()}, {})


def example_path(path: Path) -> Path:
    """Path of the example for a student's file."""
    return path.with_name(f"{path.stem}.example.safetensors")


def read_example(path: Path) -> tuple[Tensor, Tensor]:
    """Read the example for a student's file: images (2, channels, H, W), uint8, and logits (2, C).

    For a text student, the inputs are sentences (2, 2, L), int32.

    Args:
        path: student file.

    Raises:
        StoredFileError: if the example is missing or damaged.
    """
    tensors, _ = read_tensors(example_path(path))
    return tensors["images"], tensors["logits"]


def load_kept(path: Path) -> KeptStudent:
    """Load a student saved by `keep_student`, and check the logits for the example.

    Raises:
        CheckpointError: if the student's file is missing, damaged or has another kind.
        StoredFileError: if the example is missing or damaged, or if the logits differ.
    """
    student = load_student(path)
    images, logits = read_example(path)
    if not torch.allclose(student.logits(images), logits, atol=LOGITS_TOLERANCE, rtol=LOGITS_TOLERANCE):
        raise StoredFileError(f"{path}: the loaded student gives other logits than the saved one")
    return KeptStudent(student, images, logits)


def load_student(path: Path) -> Student:
    """Load a student that `keep_student` saved.

    Raises:
        CheckpointError: if the file is missing, damaged or has another kind.
    """
    metadata = read_metadata(path)
    info = CheckpointInfo.from_metadata(metadata)
    about: dict[str, str] = {name: metadata[name] for name in (MODEL, TOKENISER) if name in metadata}
    model: DistillationModel
    if MODEL in about:
        from trainables.models.text import build_described  # imports transformers

        model = build_described(json.loads(about[MODEL]), num_classes=info.num_classes)
    else:
        if USER_CODE in metadata:
            remember_json([json.loads(metadata[USER_CODE])])
        model = build_model(info.architecture, num_classes=info.num_classes, in_channels=info.in_channels)
    load_checkpoint(model, path)
    names = class_names_in(metadata.get(CLASS_NAMES), info.num_classes, where=str(path))
    return Student(model.eval(), info, metadata.get("trial", ""), about, names)


def class_names_in(text: str | None, num_classes: int, *, where: str) -> tuple[str, ...]:
    """Parse the class names in a file's metadata.

    Args:
        text: name list in JSON, or None if the file has none.
        num_classes: expected number of names.
        where: file name for the error message.

    Returns:
        The names, empty for None.

    Raises:
        CheckpointError: if `text` is not a list of `num_classes` names.
    """
    if text is None:
        return ()
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or len(names) != num_classes or not all(isinstance(each, str) for each in names):
        raise CheckpointError(
            f"{where}: {CLASS_NAMES} in the file is not a list of {num_classes} names: {text[:100]!r}"
        )
    return tuple(names)


def _load_pyfunc(path: str) -> Student:
    """Load a student for MLflow, given the model's data: a file, or a folder with the file."""
    place = Path(path)
    return load_student(next(place.glob("*.safetensors")) if place.is_dir() else place)
