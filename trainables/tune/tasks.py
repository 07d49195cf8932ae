"""Work that a study hands to Ray beside its trials: prepare a teacher, read a dataset, fill teacher outputs."""

import json
import time
from pathlib import Path
from typing import Any, NamedTuple

import ray

from trainables.data.views import num_slots
from trainables.process.threads import use_one_thread
from trainables.spec.trial import TrialConfig
from trainables.teacher.files import (
    ensure_teacher,
    notes_on_given_teacher,
    stored_path,
)
from trainables.teacher_outputs.store import Shard
from trainables.tune.cache import dataset_of, store_of, teacher_of, teacher_path_of
from trainables.tune.session import (
    take_notes,
)
from trainables.tune.settings import resolved


class PreparedTeacher(NamedTuple):
    """A study's teacher, ready for its trials.

    Args:
        path: its file.
        notes: what a person should know of one that was given.
    """

    path: str
    notes: list[str]


def prepare_teacher(
    config: dict[str, Any], data_root: str | None, folder: str, progress_file: str | None = None
) -> PreparedTeacher:
    """Train the study's teacher, or find it where an earlier study left it, or where one that was given is kept.

    Args:
        config: fields of a `TrialConfig` with that teacher.
        data_root: where the dataset lies.
        folder: where teachers are kept.
        progress_file: to be told there how a training goes, as JSON: `epoch`, `epochs`, `accuracy`.
    """
    use_one_thread()
    trial = TrialConfig(**config)
    kept = stored_path(Path(folder), trial.teacher_digest) if trial.teacher_digest else None
    dataset = dataset_of(trial, data_root, kept)

    def tell(epoch: int, epochs: int, accuracy: float) -> None:
        if progress_file is not None:
            text = json.dumps({"epoch": epoch, "epochs": epochs, "accuracy": accuracy})
            partial = Path(f"{progress_file}.partial")
            partial.write_text(text, encoding="utf-8")
            partial.replace(progress_file)

    path = ensure_teacher(trial, dataset, Path(folder), progress=tell)
    notes = notes_on_given_teacher(path, trial, dataset) if trial.teacher_digest else []
    return PreparedTeacher(str(path), notes)


def dataset_digest(config: dict[str, Any], data_root: str | None, folder: str) -> str:
    """Read a study's dataset and return the digest of its content and split.

    Args:
        config: fields of a `TrialConfig` of the study.
        data_root: where the dataset lies.
        folder: where teachers are kept; one that was given has its tokeniser there.
    """
    use_one_thread()
    trial = TrialConfig(**config)
    kept = stored_path(Path(folder), trial.teacher_digest) if trial.teacher_digest else None
    return dataset_of(trial, data_root, kept).digest


class FillReport(NamedTuple):
    """What a task of `fill_teacher_outputs` found and did.

    Args:
        missing: what was missing when it began, where it had to look for itself.
        filled: the shards that now have their file.
        forwards: samples that went through the teacher.
        seconds: what that took.
        notes: what a person should know.
        node: Ray's name of the node that it ran on.
    """

    missing: list[Shard]
    filled: list[Shard]
    forwards: int
    seconds: float
    notes: list[str]
    node: str


def fill_teacher_outputs(settings: dict[str, Any], shards: list[Shard] | None = None) -> FillReport:
    """Fill shards of the teacher's outputs, one after the other; it ends early where one cannot be stored.

    Args:
        settings: as the Tune config of a trial, and so are the outputs that it wants filled: those of the
            validation split and of all slots that its epochs use.
        shards: which; if not given, the first one that is missing.
    """
    use_one_thread()
    settings = resolved(settings)
    config = TrialConfig(**settings["config"])
    path = teacher_path_of(settings, config)
    assert path is not None
    dataset = dataset_of(config, settings["data_root"], path)
    teacher = teacher_of(path, config, dataset)
    store = store_of(settings["teacher_outputs"], config, dataset, teacher, settings["device"])
    missing = store.missing(num_slots(store.tables.num_views, config.epochs)) if shards is None else []
    filled, forwards, began = [], 0, time.perf_counter()
    for shard in missing[:1] if shards is None else shards:
        done = store.fill(shard)
        forwards += done.forwards
        if not done.stored:
            break
        filled.append(shard)
    seconds = time.perf_counter() - began
    node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else ""
    return FillReport(missing, filled, forwards, seconds, take_notes(), node)
