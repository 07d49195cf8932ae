"""Given teachers on text: read an existing checkpoint, check it against the task and describe it.

The tokeniser is part of the teacher and is stored in the same file.
"""

import hashlib
import json
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from trainables.data.registry import dataset_info
from trainables.models import CheckpointError, DistillationModel, load_checkpoint, read_metadata
from trainables.models.checkpoints import is_ours
from trainables.models.class_order import ClassNamesError, read_class_order, read_raw_config
from trainables.models.pretrained import find_folder, load_pretrained
from trainables.models.text import TextClassifier, TextModelError, build_described
from trainables.storage.atomic import write_atomically
from trainables.storage.tensors import tensors_digest
from trainables.teacher.card import TOKENISER, TOKENISER_FILE
from trainables.teacher.given import GIVEN_FORMAT, UNKNOWN_DATA, GivenTeacher

if TYPE_CHECKING:
    from trainables.data.dataset import Dataset


def tokeniser_of(dataset: "Dataset") -> str:
    """Return a text dataset's tokeniser, as the content of a tokenizer.json."""
    from trainables.data.text.dataset import TextDataset

    assert isinstance(dataset, TextDataset)
    return dataset.tokeniser.json


def tokeniser_folder(teacher: Path) -> Path:
    """Return the folder for a given teacher's tokeniser, next to the teacher file."""
    return teacher.with_suffix(".tokeniser")


def keep_tokeniser(teacher: GivenTeacher, path: Path) -> None:
    """Store a given teacher's tokeniser next to the teacher file `path`."""
    if teacher.tokeniser is not None:
        write_atomically(tokeniser_folder(path) / TOKENISER_FILE, teacher.tokeniser.encode())


def read_given_text_teacher(path: Path, dataset: str, *, architecture: str | None = None) -> GivenTeacher:
    """Read a checkpoint as a task's teacher.

    Args:
        path: folder in Hugging Face's layout with a fine-tuned sequence classification model and the tokeniser; or the
            teacher.safetensors of `python -m trainables.teacher`.
        dataset: canonical task name.
        architecture: expected architecture. Checked only for a file of `python -m trainables.teacher`.

    Raises:
        CheckpointError: the checkpoint is missing, damaged or for another task, or the tokeniser does not fit the
            model.
    """
    from trainables.data.text.tokeniser import check_vocabulary, load_tokeniser, parse_tokeniser
    from trainables.spec.glue import check_classes

    task = dataset_info(dataset).task
    assert task is not None
    try:
        if not path.is_file():
            folder = find_folder(str(path))
            check_classes(task, _classes_of(folder, len(task.labels)), where=str(folder))
            classes = read_class_order(folder, task).note
            model = load_pretrained(folder, num_classes=len(task.labels), needs_head=True, task=task)
            tokeniser, name, data_digest = load_tokeniser(folder), str(folder), UNKNOWN_DATA
        else:
            model, metadata = _read_ours(path)
            check_classes(task, model.head.out_features, where=str(path))
            classes = ""
            name, data_digest = metadata["architecture"], metadata["data_digest"]
            if architecture not in (None, name):
                raise CheckpointError(f"{path}: the architecture is {name!r}, but {architecture!r} was requested")
            tokeniser = parse_tokeniser(metadata[TOKENISER], where=str(path))
        check_vocabulary(tokeniser, model.vocabulary_size, where=str(path))
    except (TextModelError, ValueError) as error:
        raise CheckpointError(str(error)) from error
    _check_logits(model, path)
    identity = {
        "format": GIVEN_FORMAT,
        "architecture": name,
        "num_classes": model.head.out_features,
        "in_channels": 0,
        "mean": [],
        "std": [],
        "weights": tensors_digest(model.state_dict()),
        "model": model.description,
        TOKENISER: hashlib.sha256(tokeniser.json.encode()).hexdigest(),
    }
    return GivenTeacher(identity, model.state_dict(), data_digest, tokeniser.json, classes)


def _classes_of(folder: Path, default: int) -> int:
    """Return the number of classes in a folder's configuration, or `default` for a model without fine-tuning."""
    content = read_raw_config(folder)
    labels = content.get("id2label")
    try:
        return len(labels) if labels else int(content.get("num_labels", default))
    except (TypeError, ValueError):
        raise ClassNamesError(f"{folder}: config.json does not state the number of classes") from None


def _read_ours(path: Path) -> tuple[TextClassifier, dict[str, str]]:
    if not is_ours(path):
        raise CheckpointError(
            f"{path}: give a folder in Hugging Face's layout (config.json, model.safetensors, tokenizer.json), or "
            "teacher.safetensors of python -m trainables.teacher"
        )
    metadata = read_metadata(path)
    missing = [name for name in ("architecture", "num_classes", "model", TOKENISER) if name not in metadata]
    if missing:
        raise CheckpointError(f"{path} is not a text teacher: it does not state its {', '.join(missing)}")
    model = build_described(json.loads(metadata["model"]), num_classes=int(metadata["num_classes"]))
    load_checkpoint(model, path)
    return model, metadata


@torch.no_grad()
def _check_logits(model: DistillationModel, path: Path) -> None:
    sentences = torch.ones(2, 2, 8, dtype=torch.int32) * torch.tensor([[1], [0]], dtype=torch.int32)
    try:
        logits = model.eval()(sentences)
    except (RuntimeError, IndexError) as error:
        raise CheckpointError(f"{path}: the model fails on a sentence of 8 tokens ({error})") from error
    if not logits.isfinite().all():
        raise CheckpointError(f"{path}: the logits are not finite: give another checkpoint")
