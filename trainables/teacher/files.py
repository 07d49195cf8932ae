"""Teacher files on disk, named by a digest of the teacher's origin, or of a given teacher's content."""

import hashlib
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, Final

import torch
from torch import Tensor

from trainables.data.dataset import Dataset
from trainables.display.numbers import NETWORK_PLACES, format_number, listed
from trainables.methods.registry import METHODS
from trainables.models import DistillationModel, build_model
from trainables.models.ensemble import MeanProbability
from trainables.process.threads import one_thread
from trainables.run.run import build_batches
from trainables.spec.architectures import is_pretrained_text_name
from trainables.spec.modality import is_text
from trainables.spec.recipes import TeacherRecipe
from trainables.spec.teacher_trial import teacher_recipe, teacher_trial
from trainables.spec.text_defaults import TEACHER_TRAINING
from trainables.spec.trial import TrialConfig
from trainables.storage.atomic import StoredFileError, locked, write_atomically
from trainables.storage.tensors import read_tensors, tensors_digest, write_tensors
from trainables.teacher.given import GIVEN_FORMAT, UNKNOWN_DATA, GivenTeacher, identity_digest
from trainables.teacher.training import TeacherTraining
from trainables.teacher_outputs.frozen import FrozenTeacher, Renormalisation

_FORMAT: Final = "pesfkd-teacher-2"
_PREPARED_FOR: Final = "prepared_for"
MODEL: Final = "model"
CLASSES: Final = "classes"
# A checkpoint takes some milliseconds. On the digits, an epoch for a study's teacher takes only thirty.
_SECONDS_BETWEEN_CHECKPOINTS: Final = 1.0

_MARGIN: Final = 0.1  # fraction of the way from guessing to an accuracy of 1

# (finished epochs, total epochs, validation accuracy as a fraction)
TeacherProgress = Callable[[int, int, float], None]


class TeacherFileError(ValueError):
    """Stored teacher is damaged or not the requested one."""


def teacher_digest(config: TrialConfig, dataset: Dataset) -> str:
    """Return sixteen hex digits to identify a teacher.

    For a trained teacher, the digest covers the origin: data, split, architecture, recipe and seed. For a given
    teacher, it covers the teacher itself.
    """
    if config.teacher_digest:
        return config.teacher_digest
    content = json.dumps(_origin(config, dataset), sort_keys=True)
    return hashlib.sha256(content.encode()).hexdigest()[:16]


def teacher_metadata(
    dataset: Dataset, *, architecture: str, recipe: TeacherRecipe, seed: int, precision: str = "fp32"
) -> dict[str, Any]:
    """Return the metadata for a trained teacher's file: the fields of `CheckpointInfo` and more.

    The teacher's digest is computed from these metadata.
    """
    text = text_origin(architecture) if is_text(dataset.name) else {}
    return {
        "format": _FORMAT,
        "architecture": architecture,
        "num_classes": dataset.num_classes,
        "in_channels": dataset.info.channels,
        "image_size": dataset.info.image_size,
        "mean": list(dataset.mean),
        "std": list(dataset.std),
        "data_digest": dataset.digest,
        "recipe": asdict(recipe),
        "precision": precision,
        "seed": seed,
        **text,
    }


def text_origin(architecture: str) -> dict[str, Any]:
    """Return the additional origin of a text teacher: training settings and digest of the initial weights."""
    origin: dict[str, Any] = {"training": TEACHER_TRAINING}
    if is_pretrained_text_name(architecture):
        from trainables.models.pretrained import find_folder, folder_digest

        origin["initial"] = folder_digest(find_folder(architecture))
    return origin


def train_teacher(
    config: TrialConfig, dataset: Dataset, path: Path, *, progress: TeacherProgress | None = None
) -> None:
    """Train the teacher of `config` on the train split and store it. Resume an interrupted training.

    The last epoch's weights are stored. Choosing an epoch by validation accuracy would bias that accuracy upwards.
    Training runs on one CPU thread, so every machine trains the same teacher.

    Args:
        config: trial config with the teacher.
        dataset: the config's dataset.
        path: file to write. The file appears when the teacher is complete. Until then, a folder with the suffix
            `.training` holds the training checkpoint. A file with the suffix `.cost.json` records the training time.
        progress: function to call after each epoch.
    """
    trial = teacher_trial(config)
    # On several threads, sums differ in their last bits. Two threads are also slow when both of two cores are busy:
    # training a teacher took 66 s, and on one thread 1 to 4 s.
    with one_thread():
        training = TeacherTraining(
            trial,
            dataset,
            path.with_suffix(".training"),
            seconds_between_checkpoints=_SECONDS_BETWEEN_CHECKPOINTS,
            method=METHODS[config.method].teacher_method,
        )
        for measures in training.epochs():
            if progress is not None:
                progress(training.finished_epochs, trial.epochs, measures["val/accuracy"])
    metadata = _origin(config, dataset) | {
        "epochs": training.finished_epochs,
        "validation_accuracy": training.history[-1]["val/accuracy"],
        **described(training.model),
    }
    # A separate file keeps the teacher file independent of the machine and the training speed: the same teacher has the
    # same bytes.
    write_atomically(_cost_path(path), json.dumps({"training_seconds": training.seconds}).encode())
    write_tensors(path, training.model.state_dict(), metadata)
    training.forget()


def load_teacher(path: Path, config: TrialConfig, dataset: Dataset) -> FrozenTeacher:
    """Load the teacher of `config` from a file.

    A given teacher may need another image normalisation than the dataset. The returned teacher then renormalises the
    images.

    Raises:
        TeacherFileError: the file is damaged or holds another teacher. The message gives the file, the value found and
            the expected value.
    """
    given = bool(config.teacher_digest)
    remedy = "copied again from the checkpoint" if given else "trained again"
    advice = f"Delete the file to have the teacher {remedy}."
    try:
        tensors, found = read_tensors(path)
    except StoredFileError as error:
        raise TeacherFileError(f"{error}. {advice}") from error
    expected = _expected_of_given(config, dataset, tensors) if given else _origin(config, dataset)
    expected = {_PREPARED_FOR: None, **expected}  # an ordinary teacher is not prepared for one student
    for name, value in expected.items():
        if found.get(name) != value:
            raise TeacherFileError(
                f"{path}: contains another teacher: {name} is {found.get(name)!r}, expected {value!r}. {advice}"
            )
    if given and identity_digest(found) != config.teacher_digest:
        raise TeacherFileError(
            f"{path}: contains another teacher: digest is {identity_digest(found)}, expected "
            f"{config.teacher_digest}. {advice}"
        )
    model = rebuild_model(config.teacher, dataset, found)
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise TeacherFileError(f"{path}: the tensors do not fit {config.teacher!r}: {error}. {advice}") from error
    own = (found["mean"], found["std"]) if given else (dataset.mean, dataset.std)
    return FrozenTeacher(
        model,
        renormalise=Renormalisation.between(dataset.mean, dataset.std, *own),
        training_seconds=_training_seconds(path),
    )


def described(model: DistillationModel) -> dict[str, Any]:
    """Return the metadata not determined by the architecture name: the configuration of a language model."""
    return {MODEL: getattr(model, "description")} if hasattr(model, "description") else {}  # noqa: B009


def rebuild_model(name: str, dataset: Dataset, metadata: Mapping[str, Any]) -> DistillationModel:
    """Build a teacher file's model, without loading the weights.

    Args:
        name: architecture name.
        dataset: the teacher's dataset.
        metadata: file metadata.
    """
    if MODEL not in metadata:
        return build_model(name, num_classes=dataset.num_classes, in_channels=dataset.info.channels)
    from trainables.models.text import build_described  # imports transformers

    return build_described(metadata[MODEL], num_classes=dataset.num_classes)


def ensure_teacher(
    config: TrialConfig, dataset: Dataset, folder: Path, *, progress: TeacherProgress | None = None
) -> Path:
    """Return the teacher file for `config`. Train the teacher if the file is missing.

    If several processes call this at once, one trains and the others wait.

    Args:
        config: trial config with the teacher.
        dataset: the config's dataset.
        folder: folder of stored teachers.
        progress: function to call after each epoch, in the training process.

    Returns:
        `<folder>/<teacher_digest>.safetensors`. The content is verified by `load_teacher`.

    Raises:
        TeacherFileError: a given teacher's file is missing (see `keep_given_teacher`).
    """
    path = stored_path(folder, teacher_digest(config, dataset))
    if not path.exists():
        if config.teacher_digest:
            raise TeacherFileError(f"{path}: the file of the given teacher no longer exists")
        with locked(path.with_suffix(".lock")):
            if not path.exists():
                train_teacher(config, dataset, path, progress=progress)
    return path


def find_tokeniser(config: TrialConfig, teacher: Path | str | None) -> Path | None:
    """Return the tokeniser folder for the trial's sentences.

    The tokeniser belongs to the models. A given teacher keeps a tokeniser next to the teacher file. For a teacher or a
    student with pretrained weights, the tokeniser lies in the weights' folder.

    Args:
        config: trial config.
        teacher: teacher file, if there is one.

    Returns:
        The folder. None if the tokeniser is trained on the sentences, or if the data are not text.
    """
    if not is_text(config.dataset):
        return None
    from trainables.models.pretrained import find_folder
    from trainables.teacher.given_text import tokeniser_folder

    if config.teacher_digest:
        assert teacher is not None
        return tokeniser_folder(Path(teacher))
    for name in (config.teacher, config.student):
        if is_pretrained_text_name(name):
            return find_folder(name)
    return None


def stored_path(folder: Path, digest: str) -> Path:
    """Return the stored teacher's path for the given digest."""
    return folder / f"{digest}.safetensors"


def keep_given_teacher(teacher: GivenTeacher, folder: Path) -> Path:
    """Store a teacher from a checkpoint under the digest. The checkpoint is no longer needed then.

    Returns:
        The stored file's path.
    """
    path = stored_path(folder, teacher.digest)
    if teacher.tokeniser is not None:
        from trainables.teacher.given_text import keep_tokeniser  # imports modules for text

        keep_tokeniser(teacher, path)
    classes = {CLASSES: teacher.classes} if teacher.classes else {}
    write_tensors(path, teacher.weights, teacher.identity | {"data_digest": teacher.data_digest} | classes)
    return path


def is_kept(folder: Path, digest: str) -> bool:
    """Return whether `folder` holds an intact copy of the given teacher with this digest."""
    try:
        tensors, metadata = read_tensors(stored_path(folder, digest))
    except StoredFileError:
        return False
    return identity_digest(metadata) == digest and metadata["weights"] == tensors_digest(tensors)


def beats_guessing(accuracy: float, labels: Tensor) -> bool:
    """Return whether a teacher is clearly better than always predicting the most frequent class.

    The accuracy must be at least a tenth of the way from that baseline to 1.

    Args:
        accuracy: teacher accuracy, as a fraction.
        labels: (N,) int64, the evaluated samples' labels.
    """
    baseline = labels.bincount().max().item() / len(labels)
    return accuracy >= baseline + _MARGIN * (1 - baseline)


def notes_on_given_teacher(path: Path, config: TrialConfig, dataset: Dataset) -> list[str]:
    """Return notes on a given teacher's validation accuracy, with warnings if it is low or biased upwards.

    Raises:
        TeacherFileError: the file is damaged or holds another teacher.
    """
    teacher = load_teacher(path, config, dataset)
    split = dataset.validation
    batches = build_batches(config, dataset, torch.device("cpu")).evaluation(split)
    correct = torch.cat([_correct(teacher, inputs, split.labels[rows]) for rows, inputs in batches])
    accuracy, *of_members = correct.double().mean(dim=0).tolist()
    share, *shares = (format_number(each, NETWORK_PLACES) for each in (accuracy, *of_members))
    members = f", its members have {listed(shares)}" if shares else ""
    notes = [f"the teacher has accuracy {share} on the validation split (n = {len(split):,}){members}"]
    if not beats_guessing(accuracy, split.labels):
        notes.append(
            "warning: this accuracy is little better than always predicting the most frequent class: check that "
            "classes, class order and normalisation match the training of the teacher"
        )
    about = read_tensors(path)[1]
    if CLASSES in about:
        notes.append(f"the teacher's {about[CLASSES]}")
    data_digest = about["data_digest"]
    if data_digest != dataset.digest:
        known = data_digest != UNKNOWN_DATA
        origin = (
            "the teacher was trained on other data or another split"
            if known
            else "the training data of the teacher are unknown"
        )
        notes.append(
            f"{origin}: if it was trained on samples of this validation split, its accuracy is overestimated, but not "
            "that of its students"
        )
    return notes


def _correct(teacher: FrozenTeacher, inputs: Tensor, labels: Tensor) -> Tensor:
    """Return which answers are correct, (B, 1), with a further column for each ensemble member."""
    outputs = teacher(inputs)
    answers = outputs.logits[:, None]
    if isinstance(teacher.head, MeanProbability):
        answers = torch.cat([answers, teacher.head.by_member(outputs.feature)], dim=1)
    return answers.argmax(dim=2) == labels[:, None]


def _cost_path(path: Path) -> Path:
    return path.with_suffix(".cost.json")


def _training_seconds(path: Path) -> float | None:
    """Return a stored teacher's training time in seconds, or None if unknown, as for a given teacher."""
    try:
        return float(json.loads(_cost_path(path).read_text(encoding="utf-8"))["training_seconds"])
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _origin(config: TrialConfig, dataset: Dataset) -> dict[str, Any]:
    origin = teacher_metadata(
        dataset, architecture=config.teacher, recipe=teacher_recipe(config), seed=config.seed_of_teacher
    )
    own = {name: getattr(config, name) for name in sorted(config.method_spec.teacher_fields)}
    return origin | {_PREPARED_FOR: {"student": config.student, "method": config.method, **own}} if own else origin


def _expected_of_given(config: TrialConfig, dataset: Dataset, tensors: dict[str, Tensor]) -> dict[str, Any]:
    return {
        "format": GIVEN_FORMAT,
        "architecture": config.teacher,
        "num_classes": dataset.num_classes,
        "in_channels": dataset.info.channels,
        "weights": tensors_digest(tensors),
    }
