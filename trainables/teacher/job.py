"""Train one teacher for the command line: from the request to the teacher's folder.

The folder holds `settings.json` (the request) and, during training, `training/` (the checkpoint). At the end it holds
`teacher.safetensors`, `README.md` (the model card) and `history.json` (every epoch's measures). `code/` holds the
sources of a user network or user dataset.
"""

import json
import os
import shutil
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import torch

from trainables.data import load_dataset
from trainables.data.dataset import Dataset
from trainables.data.image_check import check_image_folder
from trainables.data.registry import dataset_info
from trainables.models import DistillationModel, build_model
from trainables.process.randomness import seeded
from trainables.process.threads import one_thread, use_one_thread
from trainables.process.versions import running_versions
from trainables.run import shape_check
from trainables.run.learners import build_network
from trainables.spec.architectures import is_pretrained_text_name
from trainables.spec.modality import is_text
from trainables.spec.trial import derive_seed
from trainables.steps.sgd import count_parameters
from trainables.storage.atomic import write_atomically
from trainables.storage.tensors import read_tensors, tensors_digest, write_tensors
from trainables.teacher.card import TOKENISER, accuracies, model_card, teacher_options, with_kept_code
from trainables.teacher.files import CLASSES, described, teacher_metadata
from trainables.teacher.given_text import tokeniser_of
from trainables.teacher.request import RequestError, TeacherRequest
from trainables.teacher.training import TeacherTraining
from trainables.user_code.loading import sources_of
from trainables.user_code.reference import is_canonical
from trainables.user_code.storage import save_sources

if TYPE_CHECKING:
    from trainables.teacher.tracking import TeacherTracker

TEACHER_FILE: Final = "teacher.safetensors"
CARD_FILE: Final = "README.md"
CODE_FOLDER: Final = "code"
_SETTINGS_FILE: Final = "settings.json"
_HISTORY_FILE: Final = "history.json"
_TRAINING_FOLDER: Final = "training"
_VERSIONS: Final = ("pesfkd", "git.commit", "git.dirty", "python", "torch", "torchvision")

# (finished epochs, last epoch's measures)
EpochDone = Callable[[int, dict[str, float]], None]


@dataclass(frozen=True)
class Result:
    """Finished teacher.

    Args:
        folder: teacher folder.
        metadata: metadata of `teacher.safetensors`.
        tracking_error: error in the delivery to MLflow, if any.
    """

    folder: Path
    metadata: dict[str, Any]
    tracking_error: Exception | None = None

    @property
    def summary(self) -> dict[str, Any]:
        """JSON-serialisable summary."""
        shares = {
            split: {"accuracy": share.value, "low": share.low, "high": share.high, "n": share.samples}
            for split, share in accuracies(self.metadata).items()
        }
        return {
            "checkpoint": str(self.folder / TEACHER_FILE),
            "card": str(self.folder / CARD_FILE),
            "weights": self.metadata["weights"],
            **shares,
            "command": with_kept_code(self.metadata["command"], f"{self.folder}/"),
            "teacher_options": teacher_options(self.metadata, f"{self.folder}/", TEACHER_FILE),
        }


def set_up(request: TeacherRequest) -> None:
    """Set this process's threads, determinism and device for a request.

    Raises:
        RequestError: the device does not exist.
    """
    # cuBLAS is deterministic only with a fixed workspace, and reads this variable at the start.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    use_one_thread()
    torch.set_num_threads(request.threads)
    if request.device != "cpu":
        if not torch.cuda.is_available() or torch.device(request.device).index not in (
            None,
            *range(torch.cuda.device_count()),
        ):
            raise RequestError(f"--device {request.device}: torch finds no such GPU on this machine; use cpu")
        # Some layers in other libraries' models have no deterministic implementation on a GPU.
        torch.set_deterministic_debug_mode("warn")


def open_data(request: TeacherRequest, root: Path | None, *, download: bool) -> tuple[Dataset, DistillationModel]:
    """Load a request's dataset, and build the model with initial weights.

    Raises:
        RequestError: the data are missing, or the model cannot be built.
    """
    try:
        tokeniser = None
        if is_text(request.dataset) and is_pretrained_text_name(request.model):
            from trainables.models.pretrained import find_folder  # imports transformers

            tokeniser = find_folder(request.model, download=download)
            check_fits(request, tokeniser, root)
        dataset = load_dataset(request.dataset, root, seed=request.split_seed, download=download, tokeniser=tokeniser)
        info = dataset.info
        with seeded(derive_seed("student", request.seed)):  # draws the head if the published classes differ
            if is_text(request.dataset):
                return dataset, build_network(request.model, dataset)
            model = build_model(
                request.model,
                num_classes=dataset.num_classes,
                in_channels=info.channels,
                pretrained=request.pretrained,
            )
    except ValueError as error:
        raise RequestError(str(error)) from error
    return dataset, model


def check_fits(request: TeacherRequest, folder: Path, root: Path | None) -> None:
    """Check a language model's folder without loading weights: all files exist, and the sentences can be read.

    Raises:
        ValueError: the folder is incomplete, or the model cannot read the sentences.
    """
    from trainables.data.text.tokeniser import load_tokeniser
    from trainables.models.pretrained import check_folder, read_config

    read_config(folder)  # reject a wrong kind of model before the tokeniser
    check_folder(folder, request.dataset, root, tokeniser=load_tokeniser(folder))


def check_network(request: TeacherRequest, *, fetched_later: bool = False) -> None:
    """Check before reading any sample that the model accepts the dataset's samples.

    Args:
        request: request for the teacher.
        fetched_later: whether a Hub model may be missing, as in a dry run before the download.

    Raises:
        RequestError: the model does not fit. The message gives the reason and a fitting model.
    """
    info = dataset_info(request.dataset)
    try:
        shape_check.check_samples(info, request.recipe.batch_size)
        with one_thread():
            if not is_text(request.dataset):
                wanted = shape_check.Wanted(info, request.recipe.batch_size)
                shape_check.check_network(request.model, wanted, flag="--model")
            elif not (fetched_later and is_pretrained_text_name(request.model)):
                shape_check.check_text_network(request.model, request.model, info, layers="skip", flag="--model")
    except shape_check.ShapeError as error:
        raise RequestError(str(error)) from None


def check_images(request: TeacherRequest, *, keep: bool) -> None:
    """Check that every image of a folder or user dataset can be decoded, including the test split.

    Args:
        request: request for the teacher.
        keep: whether to keep the decoded images for the training.

    Raises:
        RequestError: some files cannot be used. The message lists all files.
    """
    try:
        check_image_folder(request.dataset, keep=keep)
    except ValueError as error:
        raise RequestError(f"--dataset: {error}") from None


def open_folder(request: TeacherRequest, folder: Path) -> str:
    """Create a teacher's folder, or reopen the folder of an earlier run with the same request.

    Returns:
        The teacher's ID in MLflow.

    Raises:
        RequestError: the folder cannot be written, is damaged, or belongs to another request.
    """
    path = folder / _SETTINGS_FILE
    try:
        folder.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            settings = {"teacher_id": uuid.uuid4().hex, **request.values}
            write_atomically(path, (json.dumps(settings, indent=2) + "\n").encode())
        found = json.loads(path.read_text(encoding="utf-8"))
        teacher_id = str(found.pop("teacher_id"))
    except OSError as error:
        raise RequestError(
            f"--output-dir: cannot write in {folder} ({error.strerror}); give a folder that you can write to"
        ) from None
    except (ValueError, KeyError, AttributeError) as error:
        raise RequestError(f"{path} is damaged ({error}); remove the folder, or give another --name") from None
    names = sorted(request.values.keys() | found.keys())
    wrong = [name for name in names if found.get(name) != request.values.get(name)]
    if wrong:
        differences = "\n  ".join(
            f"--{name.replace('_', '-')}: the folder has {found.get(name)!r}, requested {request.values.get(name)!r}"
            for name in wrong
        )
        raise RequestError(
            f"{folder} belongs to another teacher:\n  {differences}\nGive the new teacher another --name, or "
            "remove the folder."
        )
    own = [sources_of(name) for name in (request.model, request.dataset) if is_canonical(name)]
    save_sources(own, folder / CODE_FOLDER)
    return teacher_id


def refuse_other_data(folder: Path, request: TeacherRequest, dataset: Dataset) -> None:
    """Check that an existing teacher was trained on the requested data.

    Raises:
        RequestError: the teacher was trained on other data, or on another split.
        StoredFileError: the teacher file is damaged.
    """
    path = folder / TEACHER_FILE
    if not path.exists():
        return
    recorded = str(read_tensors(path)[1]["data_digest"])
    if recorded != dataset.digest:
        raise RequestError(
            f"{folder} contains a teacher that was trained on other data, or on another split of "
            f"{request.dataset} (digest {recorded[:16]}, now {dataset.digest[:16]}): give the new teacher another "
            "--name, or remove the folder"
        )


def train_into(
    folder: Path,
    request: TeacherRequest,
    dataset: Dataset,
    *,
    tracker: "TeacherTracker | None",
    initial: DistillationModel | None,
    begun: Callable[[int], None],
    epoch_done: EpochDone,
    warn: Callable[[str], None],
) -> Result:
    """Train a teacher's remaining epochs, complete the folder and deliver everything to MLflow.

    Args:
        folder: folder prepared by `open_folder`.
        request: request for the teacher.
        dataset: the request's dataset.
        tracker: run in MLflow, if any.
        initial: model with the initial weights. None if the seed draws them.
        begun: function to call before the first epoch, with the number of epochs finished by earlier runs. Not called
            if the teacher file exists.
        epoch_done: function to call after each epoch.
        warn: function to call with a warning.

    Raises:
        NonFiniteLossError: the training diverged.
        CheckpointError: the training checkpoint is damaged.
    """
    path = folder / TEACHER_FILE
    if not path.exists():
        training = TeacherTraining(request.training_config(), dataset, folder / _TRAINING_FOLDER, device=request.device)
        if initial is not None and not training.finished_epochs:
            training.model.load_state_dict(initial.state_dict())
        begun(training.finished_epochs)
        delivering = True
        for measures in training.epochs():
            if delivering:
                error = _log_history(tracker, training.history)
                delivering = error is None
                if error is not None:
                    warn(f"{error}; logging is retried after the training")
            epoch_done(training.finished_epochs, measures)
        write_atomically(folder / _HISTORY_FILE, json.dumps(training.history, indent=1).encode())
        write_tensors(path, training.model.state_dict(), _metadata(request, dataset, training))
    _, metadata = read_tensors(path)
    write_atomically(folder / CARD_FILE, model_card(metadata, file_name=TEACHER_FILE).encode())
    error = _log_result(folder, metadata, tracker)
    shutil.rmtree(folder / _TRAINING_FOLDER, ignore_errors=True)
    return Result(folder, metadata, error)


def _metadata(request: TeacherRequest, dataset: Dataset, training: TeacherTraining) -> dict[str, Any]:
    recipe = request.recipe
    samples = {"validation": len(dataset.validation), "test": len(dataset.test)}
    shares = {"validation": training.history[-1]["val/accuracy"], "test": training.test_accuracy()}
    versions = {name.removeprefix("version."): version for name, version in running_versions().items()}
    return {
        **teacher_metadata(
            dataset, architecture=request.model, recipe=recipe, seed=request.seed, precision=request.precision
        ),
        "dataset": request.dataset,
        "split_seed": request.split_seed,
        "device": request.device,
        "threads": request.threads,
        "pretrained": request.pretrained,
        "epochs": training.finished_epochs,
        "milestones": list(recipe.milestones),
        "parameters": count_parameters([training.model]),
        "train_samples": len(dataset.train),
        "weights": tensors_digest(training.model.state_dict()),
        **{f"{split}_correct": [round(shares[split] * n), n] for split, n in samples.items()},
        "versions": {name: versions[name] for name in _VERSIONS if name in versions},
        "command": request.command,
        **described(training.model),
        **(
            {TOKENISER: tokeniser_of(dataset), CLASSES: _describe_classes(request, dataset)}
            if is_text(request.dataset)
            else {}
        ),
    }


def _describe_classes(request: TeacherRequest, dataset: Dataset) -> str:
    """Describe a text task's classes, and the mapping from the initial weights' classes."""
    from trainables.models.class_order import ClassNamesError, read_class_order
    from trainables.models.pretrained import find_folder

    task = dataset.info.task
    assert task is not None
    plain = f"classes {', '.join(task.labels)}, in this order"
    if not is_pretrained_text_name(request.model):
        return plain
    try:
        return f"{plain}; initial weights: {read_class_order(find_folder(request.model), task).note}"
    except ClassNamesError:
        return f"{plain}; the initial weights have other classes, so the last layer was initialised randomly"


def _log_history(tracker: "TeacherTracker | None", history: list[dict[str, float]]) -> Exception | None:
    """Deliver the history to MLflow. Return an error instead of raising it, because MLflow must not stop a training."""
    if tracker is None:
        return None
    from trainables.storage.mlflow_store import TrackingError

    try:
        tracker.deliver(history)
    except TrackingError as error:
        return error
    return None


def _log_result(folder: Path, metadata: dict[str, Any], tracker: "TeacherTracker | None") -> Exception | None:
    if tracker is None:
        return None
    from trainables.storage.mlflow_store import TrackingError

    metrics: dict[str, float] = {}
    for split, share in accuracies(metadata).items():
        metrics |= {f"{split}_accuracy": share.value, f"{split}_low": share.low, f"{split}_high": share.high}
    card = folder / CARD_FILE
    try:
        if not tracker.ended:
            tracker.deliver(json.loads((folder / _HISTORY_FILE).read_text(encoding="utf-8")))
            files = (card, folder / TEACHER_FILE)
            tracker.finish("FINISHED", metrics=metrics, note=card.read_text(encoding="utf-8"), artifacts=files)
    except (TrackingError, OSError) as error:
        return error
    return None
