"""Datasets, teachers and teacher output stores, cached for all trials in a process."""

from functools import cache
from pathlib import Path
from typing import Any

from trainables.data import load_dataset
from trainables.data.dataset import Dataset
from trainables.data.own.opened import forget_own
from trainables.spec.trial import TrialConfig
from trainables.storage.remote_folder import RemoteFolder, node_cache
from trainables.storage.uris import is_uri
from trainables.teacher.files import (
    find_tokeniser,
    load_teacher,
    teacher_digest,
)
from trainables.teacher_outputs.frozen import FrozenTeacher
from trainables.teacher_outputs.store import ROWS_PER_SHARD, StoredTeacherOutputs, TeacherOutputsStore


def dataset_of(config: TrialConfig, root: str | None, teacher_path: str | Path | None) -> Dataset:
    """Return a trial's dataset, read once per process.

    Args:
        config: trial config.
        root: dataset folder.
        teacher_path: text teacher file; the dataset is tokenised with the teacher's tokeniser.
    """
    return _loaded(config.dataset, root, config.split_seed, config.split_number, find_tokeniser(config, teacher_path))


@cache
def _loaded(name: str, root: str | None, split_seed: int, split_number: int, tokeniser: Path | None) -> Dataset:
    return load_dataset(name, root, seed=split_seed, split_number=split_number, tokeniser=tokeniser)


def teacher_path_of(settings: dict[str, Any], config: TrialConfig) -> str | None:
    """Return the path of a trial's teacher; None for a trial without a teacher.

    Args:
        settings: trial settings; see `trainables.tune.trainable.DistillationTrainable`.
        config: trial config.
    """
    path: str | None = settings.get("own_teachers", {}).get(config.method, settings["teacher_path"])
    further: list[dict[str, Any]] = settings.get("further_teachers", [])
    if further and (config.teacher_number or config.split_number):
        numbers = {"teacher_number": config.teacher_number, "split_number": config.split_number}
        (own,) = (each["paths"] for each in further if numbers.items() <= each.items())
        return own.get(config.method, own.get(""))
    return path


_teachers: dict[tuple[str, str], FrozenTeacher] = {}


def teacher_of(path: str, config: TrialConfig, dataset: Dataset) -> FrozenTeacher:
    """Return the frozen teacher in a file, read once per process.

    Args:
        path: file path.
        config: config of a trial with this teacher.
        dataset: this trial's dataset.
    """
    key = path, teacher_digest(config, dataset)
    if key not in _teachers:
        _teachers[key] = load_teacher(Path(path), config, dataset)
    return _teachers[key]


stores: dict[tuple[str, ...], TeacherOutputsStore] = {}


def teacher_outputs_of(
    settings: Any, config: TrialConfig, dataset: Dataset, teacher: FrozenTeacher, device: str
) -> StoredTeacherOutputs | None:
    """Return the stored outputs of a trial's teacher; None if the teacher is evaluated live.

    Args:
        settings: the stored outputs' `location` and `dtype`, or None.
        config: trial config.
        dataset: trial dataset.
        teacher: the trial's teacher.
        device: device to run the trial on.
    """
    if settings is None:
        return None
    return StoredTeacherOutputs(store_of(settings, config, dataset, teacher, device))


def store_of(
    settings: Any, config: TrialConfig, dataset: Dataset, teacher: FrozenTeacher, device: str
) -> TeacherOutputsStore:
    """Return the store for a teacher's outputs, opened once per process.

    Args:
        settings: the store's `location` and `dtype`, and optionally `rows_per_shard`.
        config: config of a trial using the store.
        dataset: this trial's dataset.
        teacher: teacher for computing the outputs.
        device: device for computing missing outputs.
    """
    location, rows_per_shard = settings["location"], settings.get("rows_per_shard", ROWS_PER_SHARD)
    key = (
        location,
        settings["dtype"],
        str(rows_per_shard),
        teacher.digest,
        dataset.digest,
        config.augmentation,
        device,
    )
    if key not in stores:
        remote = is_uri(location)
        stores[key] = TeacherOutputsStore(
            node_cache() / "teacher_outputs" if remote else Path(location),
            teacher,
            dataset,
            architecture=config.teacher,
            augmentation=config.augmentation,
            dtype=settings["dtype"],
            device=device,
            remote=RemoteFolder(location) if remote else None,
            rows_per_shard=rows_per_shard,
        )
    return stores[key]


def forget_loaded() -> None:
    """Clear all cached datasets, teachers and stores in this process; files may change between two studies."""
    _loaded.cache_clear()
    forget_own()
    _teachers.clear()
    stores.clear()
