"""A trained student in a file of its own, and the way back: to a network here, or behind MLflow's `pyfunc`.

The file is safetensors with a checksum and says of itself how to build and feed the network; nothing in it is code.
MLflow is not imported: it calls `_load_pyfunc` of the module that a model names as its loader.
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
from trainables.storage.tensors import StoredFileError, read_tensors, write_tensors
from trainables.teacher.card import TOKENISER
from trainables.teacher.files import MODEL, described
from trainables.teacher.given_text import tokeniser_of

# By how much two machines, or two libraries, may differ in a logit, absolutely and of the logit itself.
LOGITS_TOLERANCE: Final = 1e-4
# In the file's metadata: the names of the classes, in JSON.
CLASS_NAMES: Final = "class_names"
_EXAMPLES: Final = 2
_ROWS: Final = 2  # of a sentence: token ids and segment ids
_BATCH: Final = 512


@dataclass(frozen=True)
class Student:
    """A student that has learnt, ready to be asked.

    Args:
        model: the network, in eval mode.
        info: how it was built and its images were normalised.
        trial: the config of its trial, in JSON.
        about: what the file of one that reads text says of it beside: `model`, its configuration, and `tokeniser`, the
            content of the tokenizer.json that gives its token ids; both in JSON.
        class_names: names of the classes, in the order of the logits; nothing where the file has none, as those of
            earlier versions.
    """

    model: DistillationModel
    info: CheckpointInfo
    trial: str
    about: Mapping[str, str] = field(default_factory=dict)
    class_names: tuple[str, ...] = ()

    @torch.no_grad()
    def logits(self, images: Tensor) -> Tensor:
        """The logits (B, C), float32, of images (B, channels, H, W), uint8; or of sentences (B, 2, L), int32.

        Raises:
            ValueError: the images are of another type or have other channels; or the sentences are no such.
        """
        if MODEL in self.about:
            return self._of_sentences(images)
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != self.info.in_channels:
            raise ValueError(
                f"this student takes uint8 images (B, {self.info.in_channels}, H, W), not normalised, not "
                f"{str(images.dtype).removeprefix('torch.')} {tuple(images.shape)}"
            )
        normalise = Normaliser(self.info.mean, self.info.std, torch.device("cpu"))
        return torch.cat([self.model(normalise(each)) for each in images.split(_BATCH)])

    def _of_sentences(self, inputs: Tensor) -> Tensor:
        if inputs.is_floating_point() or inputs.ndim != 3 or inputs.shape[1] != _ROWS:
            raise ValueError(
                "this student takes sentences (B, 2, L), int32: token ids, 0 behind the last one, and segment ids; not "
                f"{str(inputs.dtype).removeprefix('torch.')} {tuple(inputs.shape)}"
            )
        return torch.cat([self.model(each) for each in inputs.int().split(_BATCH)])

    def predict(self, model_input: NDArray[np.integer], params: dict[str, Any] | None = None) -> NDArray[np.float32]:  # noqa: ARG002
        """`logits` as MLflow's `pyfunc` asks for them."""
        logits: NDArray[np.float32] = self.logits(torch.from_numpy(np.array(model_input))).numpy()
        return logits


@dataclass(frozen=True)
class KeptStudent:
    """A student, and what it said in its trial.

    Args:
        student: as it was read.
        images: (2, channels, H, W) uint8, or (2, 2, L) int32, of its validation split.
        logits: (2, C) float32, what it gave for them when it was kept.
    """

    student: Student
    images: Tensor
    logits: Tensor


def keep_student(run: DistillationRun, path: Path) -> None:
    """Write the student of a finished trial, and beside it two images of its validation split with its logits.

    Args:
        run: the trial.
        path: ends in .safetensors; a file there is replaced.

    Raises:
        OSError: it cannot be written.
    """
    data = run.dataset
    info = CheckpointInfo(run.config.student, data.num_classes, data.info.channels, data.mean, data.std, data.digest)
    about = {name: each if isinstance(each, str) else json.dumps(each) for name, each in described(run.student).items()}
    if about:
        about[TOKENISER] = tokeniser_of(data)
    if data.info.class_names:
        about[CLASS_NAMES] = json.dumps(data.info.class_names)
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
    """Where the example of a student's file lies."""
    return path.with_name(f"{path.stem}.example.safetensors")


def read_example(path: Path) -> tuple[Tensor, Tensor]:
    """Images (2, channels, H, W) uint8 and the logits (2, C) that the student of the file `path` gave when it was kept.

    Raises:
        StoredFileError: there is no example, or it is damaged.
    """
    tensors, _ = read_tensors(example_path(path))
    return tensors["images"], tensors["logits"]


def load_kept(path: Path) -> KeptStudent:
    """The student in a file that `keep_student` wrote, which says here what it said there.

    Raises:
        CheckpointError: it is missing, damaged or of another kind.
        StoredFileError: so is its example, or it gives other logits for that than it gave when it was kept.
    """
    student = load_student(path)
    images, logits = read_example(path)
    if not torch.allclose(student.logits(images), logits, atol=LOGITS_TOLERANCE, rtol=LOGITS_TOLERANCE):
        raise StoredFileError(f"{path}: the student that was read says something else than the one that was kept")
    return KeptStudent(student, images, logits)


def load_student(path: Path) -> Student:
    """The student in a file that `keep_student` wrote.

    Raises:
        CheckpointError: it is missing, damaged or of another kind.
    """
    metadata = read_metadata(path)
    info = CheckpointInfo.from_metadata(metadata)
    about: dict[str, str] = {name: metadata[name] for name in (MODEL, TOKENISER) if name in metadata}
    model: DistillationModel
    if MODEL in about:
        from trainables.models.text import build_described  # imports transformers

        model = build_described(json.loads(about[MODEL]), num_classes=info.num_classes)
    else:
        model = build_model(info.architecture, num_classes=info.num_classes, in_channels=info.in_channels)
    load_checkpoint(model, path)
    names = class_names_in(metadata.get(CLASS_NAMES), info.num_classes, where=str(path))
    return Student(model.eval(), info, metadata.get("trial", ""), about, names)


def class_names_in(text: str | None, num_classes: int, *, where: str) -> tuple[str, ...]:
    """The names of the classes in a file's metadata; nothing without them.

    Args:
        text: a list of names, in JSON.
        num_classes: how many they must be.
        where: names the file.

    Raises:
        CheckpointError: it is something else.
    """
    if text is None:
        return ()
    try:
        names = json.loads(text)
    except ValueError:
        names = None
    if not isinstance(names, list) or len(names) != num_classes or not all(isinstance(each, str) for each in names):
        raise CheckpointError(f"{where}: {CLASS_NAMES} in the file is no list of {num_classes} names: {text[:100]!r}")
    return tuple(names)


def _load_pyfunc(path: str) -> Student:
    """What MLflow calls with the file, or the folder, that a model has as its data."""
    place = Path(path)
    return load_student(next(place.glob("*.safetensors")) if place.is_dir() else place)
