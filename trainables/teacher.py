"""Teachers: trained once, stored under the digest of what they come from, and frozen for good."""

import hashlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, Self

import torch
from torch import Tensor, nn

from trainables.compute import feature_and_logits
from trainables.data.dataset import Dataset
from trainables.models import DistillationModel, build_model
from trainables.storage import StoredFileError, locked, read_tensors, tensors_digest, write_tensors
from trainables.teacher_outputs import TeacherBatch
from trainables.training import DistillationRun, one_thread
from trainables.trial import TrialConfig

_FORMAT: Final = "pesfkd-teacher-1"

# By dataset: every field that matters to a teacher's training, so that no default of a trial changes a
# teacher.
_RECIPES: Final[dict[str, dict[str, Any]]] = {
    "digits": {
        "epochs": 30,
        "batch_size": 64,
        "student_learning_rate": 0.05,
        "student_momentum": 0.9,
        "student_weight_decay": 5e-4,
        "student_schedule": "cosine",
        "augmentation": "views",
    },
}

# (finished epochs, all epochs, validation accuracy as a fraction)
TeacherProgress = Callable[[int, int, float], None]


class TeacherFileError(ValueError):
    """A stored teacher that is damaged or is not the one that was asked for."""


class FrozenTeacher(nn.Module):
    """A trained network that never changes again: in eval mode even after `.train()`, and without gradient.

    Args:
        model: the trained network; it is frozen in place.
    """

    def __init__(self, model: DistillationModel) -> None:
        super().__init__()
        self.model = model.requires_grad_(False)
        self.digest = tensors_digest(model.state_dict())
        self.eval()

    @property
    def head(self) -> nn.Linear:
        """Its last linear layer."""
        return self.model.head

    def train(self, mode: bool = True) -> Self:  # noqa: ARG002
        """Stay in eval mode, whatever `mode` says: batch statistics must not move the teacher."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, images: Tensor) -> TeacherBatch:
        """Penultimate feature (B, D) and logits (B, C) of normalised images (B, channels, H, W)."""
        return TeacherBatch(*feature_and_logits(self.model, images))


def teacher_recipe(config: TrialConfig) -> TrialConfig:
    """The trial that the teacher of `config` is itself: a network trained by cross-entropy alone."""
    return TrialConfig(
        method="ce",
        dataset=config.dataset,
        student=config.teacher,
        split_seed=config.split_seed,
        seed=config.teacher_seed,
        data_seed=config.teacher_seed,
        **_RECIPES[config.dataset],
    )


def teacher_digest(config: TrialConfig, dataset: Dataset) -> str:
    """Sixteen hex digits of what a teacher comes from: data, split, architecture, recipe, seed, format."""
    content = json.dumps(_origin(config, dataset), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def train_teacher(
    config: TrialConfig, dataset: Dataset, path: Path, *, progress: TeacherProgress | None = None
) -> None:
    """Train the teacher of `config` on the train split and store it.

    It is the network of the last epoch: choosing one by its validation accuracy would flatter that number.
    It trains on the CPU and on one thread, so that the same teacher comes out wherever it is trained.

    Args:
        config: says which teacher.
        dataset: its data.
        path: the file to write; it appears when the teacher is complete.
        progress: called after each epoch.
    """
    recipe = teacher_recipe(config)
    run = DistillationRun(recipe, dataset, None)
    measures: dict[str, float] = {}
    # Sums on several threads differ in their last bits; and with both of two cores busy, two threads took 66 s
    # for a teacher that one thread trains in 1 to 4.
    with one_thread():
        while not run.finished:
            measures = run.run_epoch()
            if progress is not None:
                progress(run.epoch, recipe.epochs, measures["val/accuracy"])
    metadata = _origin(config, dataset) | {
        "epochs": run.epoch,
        "validation_accuracy": measures["val/accuracy"],
    }
    write_tensors(path, run.student.state_dict(), metadata)


def load_teacher(path: Path, config: TrialConfig, dataset: Dataset) -> FrozenTeacher:
    """The teacher of `config` from its file.

    Raises:
        TeacherFileError: naming the file, what was found and what was expected, if it is damaged or another
            teacher's.
    """
    advice = "Delete it to have the teacher trained again."
    try:
        tensors, found = read_tensors(path)
    except StoredFileError as error:
        raise TeacherFileError(f"{error}. {advice}") from error
    for name, expected in _origin(config, dataset).items():
        if found.get(name) != expected:
            raise TeacherFileError(
                f"{path}: another teacher: its {name} is {found.get(name)!r}, expected {expected!r}. {advice}"
            )
    info = dataset.info
    model = build_model(config.teacher, num_classes=info.num_classes, in_channels=info.channels)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise TeacherFileError(f"{path}: its tensors do not fit {config.teacher!r}: {error}. {advice}") from error
    return FrozenTeacher(model)


def ensure_teacher(
    config: TrialConfig, dataset: Dataset, folder: Path, *, progress: TeacherProgress | None = None
) -> Path:
    """The file of the teacher of `config`, trained now if it is not there yet.

    Of several processes that ask at once, one trains and the others wait for it.

    Args:
        config: says which teacher.
        dataset: its data.
        folder: where teachers are kept.
        progress: called after each epoch, by the process that trains.

    Returns:
        `<folder>/<teacher_digest>.safetensors`; whether it is whole, `load_teacher` checks.
    """
    digest = teacher_digest(config, dataset)
    path = folder / f"{digest}.safetensors"
    if not path.exists():
        with locked(folder / f"{digest}.lock"):
            if not path.exists():
                train_teacher(config, dataset, path, progress=progress)
    return path


def _origin(config: TrialConfig, dataset: Dataset) -> dict[str, Any]:
    return {
        "format": _FORMAT,
        "architecture": config.teacher,
        "num_classes": dataset.num_classes,
        "in_channels": dataset.info.channels,
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "dataset_digest": dataset.digest,
        "recipe": {"method": "ce", **_RECIPES[config.dataset]},
        "seed": config.teacher_seed,
    }
