"""A study's tasks as run by Ray on a node."""

import json
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import ray
from ray.experimental import internal_kv

from trainables.spec.trial import TrialConfig
from trainables.storage.remote_folder import node_cache
from trainables.teacher.files import TeacherProgress, stored_path, teacher_digest
from trainables.teacher_outputs.shard import Shard
from trainables.tune.cache import dataset_of
from trainables.tune.reports import FillReport, PreparedTeacher
from trainables.tune.settings import resolved
from trainables.tune.tasks import dataset_digest, fill_teacher_outputs, prepare_teacher, progress_to_file
from trainables.tune.travel import Files, TrainingCopy, pack_teacher, unpack, unpacked


def prepare_teacher_on_node(
    config: dict[str, Any],
    data_root: str | None,
    folder: str,
    progress_file: str,
    user_code: Sequence[Mapping[str, Any]],
) -> PreparedTeacher:
    """Prepare a teacher, and write the progress to a file; see `trainables.tune.tasks.prepare_teacher`."""
    return prepare_teacher(config, data_root, folder, progress_to_file(progress_file), user_code=user_code)


class Workplace(NamedTuple):
    """What a teacher's preparation needs on a node without the output folder.

    Args:
        storage: URI of the storage for checkpoints.
        study: identifier of the study.
        known: names of the teacher files that the driver has.
        given: content of a given teacher's files; empty for a teacher that the study trains.
        progress: key for the progress; see `read_progress`.
    """

    storage: str
    study: str
    known: Collection[str]
    given: Files
    progress: str


def prepare_travelling_teacher(
    config: dict[str, Any], data_root: str | None, workplace: Workplace, user_code: Sequence[Mapping[str, Any]]
) -> tuple[PreparedTeacher, Files]:
    """Prepare a teacher on a node that does not see the output folder.

    Returns:
        The teacher, with the file's name as the path, and the files that the driver lacks.
    """
    trial, folder = TrialConfig(**config), node_cache() / "teachers" / workplace.study
    unpack(workplace.given, folder)
    if trial.teacher_digest:
        prepared = prepare_teacher(config, data_root, str(folder), user_code=user_code)
        return prepared._replace(path=Path(prepared.path).name), {}
    # Reads the data as the preparation does, so they are read once.
    dataset_digest(config, data_root, str(folder), user_code=user_code)
    name = stored_path(folder, teacher_digest(trial, dataset_of(trial, data_root, None))).name
    if name in workplace.known:
        return PreparedTeacher(name, []), {}
    copy = TrainingCopy(workplace.storage, workplace.study, (folder / name).with_suffix(".training"))
    copy.fetch()
    progress = copy.copy_after(_progress_to_cluster(workplace.progress))
    prepared = prepare_teacher(config, data_root, str(folder), progress, user_code=user_code)
    copy.delete()
    return prepared._replace(path=name), pack_teacher(Path(prepared.path))


def _progress_to_cluster(key: str) -> TeacherProgress:
    def report_epoch(epoch: int, epochs: int, accuracy: float) -> None:
        text = json.dumps({"epoch": epoch, "epochs": epochs, "accuracy": accuracy})
        internal_kv._internal_kv_put(key, text, overwrite=True)

    return report_epoch


def read_progress(key: str) -> dict[str, Any] | None:
    """Return the progress of a teacher's training on any node: `epoch`, `epochs`, `accuracy`; None before an epoch."""
    found = internal_kv._internal_kv_get(key)
    return json.loads(found) if found else None


def forget_progress(key: str) -> None:
    """Remove the progress of a teacher's training."""
    internal_kv._internal_kv_del(key)


def dataset_digest_on_node(
    config: dict[str, Any],
    data_root: str | None,
    folder: str,
    given: Files | None,
    user_code: Sequence[Mapping[str, Any]],
) -> str:
    """Read a study's dataset on a node; see `trainables.tune.tasks.dataset_digest`.

    Args:
        config: fields of a `TrialConfig` in the study.
        data_root: dataset folder.
        folder: folder with all teachers.
        given: content of a given teacher's files, if the node does not see `folder`.
        user_code: user code sources.
    """
    return dataset_digest(config, data_root, folder if not given else str(unpacked(given)), user_code=user_code)


def fill_on_node(settings: dict[str, Any], shards: list[Shard] | None = None) -> FillReport:
    """Fill teacher outputs, and report the node; see `trainables.tune.tasks.fill_teacher_outputs`."""
    report = fill_teacher_outputs(resolved(settings), shards)
    return report._replace(node=ray.get_runtime_context().get_node_id())
