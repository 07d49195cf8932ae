"""Files of a study on a cluster without a shared folder.

The output folder belongs to the driver. A teacher reaches the nodes through Ray's object store. Each node keeps a copy
in the folder for copies of remote files (`node_cache`). Students of a confirmation, and the checkpoint of a teacher's
training, are written to the storage for checkpoints. This module needs no Ray.
"""

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any, Final, NamedTuple

from trainables.run.checkpoint import CHECKPOINT_FILE
from trainables.storage.atomic import atomic_file, write_atomically
from trainables.storage.remote_folder import RemoteFolder, RemoteFolderError, node_cache
from trainables.storage.uris import joined
from trainables.students.file import example_path

SETTING: Final = "travelling"  # name among a trial's settings
_NOT_PACKED: Final = (".lock", ".partial", ".training")
_SECONDS_BETWEEN_COPIES: Final = 30.0  # of a teacher's training checkpoint
# A trial that has finished waits for storage, because training again would take longer.
_SECONDS_FOR_STUDENT: Final = 600.0
_SECONDS_BETWEEN_TRIES: Final = 5.0

# Content by file name. A name may contain a folder.
Files = dict[str, bytes]


class Travelling(NamedTuple):
    """Files for the trials of a study.

    Args:
        storage: URI of the storage for checkpoints.
        study: identifier of the study.
        teachers: content of each teacher's files, by the path of the teacher file on the driver's machine.
    """

    storage: str
    study: str
    teachers: dict[str, Files]

    def students(self) -> RemoteFolder:
        """Return the folder with students of finished confirmation trials."""
        return RemoteFolder(joined(self.storage, _students(self.study)))


def _students(study: str) -> str:
    return f"students/{study}"


def pack_teacher(teacher: Path) -> Files:
    """Return the content of a teacher file and of the files that belong to it, such as a tokeniser."""
    found: Files = {}
    for path in sorted(teacher.parent.glob(f"{teacher.stem}.*")):
        if path.suffix not in _NOT_PACKED:
            inside = sorted(path.rglob("*")) if path.is_dir() else [path]
            found |= {str(each.relative_to(teacher.parent)): each.read_bytes() for each in inside if each.is_file()}
    return found


def unpack(files: Files, folder: Path) -> None:
    """Write files into a folder, unless they are there with this content."""
    for name, content in files.items():
        path = folder / name
        if not path.exists() or path.read_bytes() != content:
            write_atomically(path, content)


def unpacked(files: Files) -> Path:
    """Return this node's folder with copies of files. The folder is named by a digest of names and content."""
    digest = hashlib.sha256()
    for name, content in sorted(files.items()):
        digest.update(f"{name}|{len(content)}|".encode() + hashlib.sha256(content).digest())
    folder = node_cache() / "teachers" / digest.hexdigest()[:32]
    unpack(files, folder)
    return folder


def localised(settings: Mapping[str, Any], travelling: Travelling, places: Mapping[str, Path]) -> dict[str, Any]:
    """Return a trial's settings with this node's paths instead of the driver's.

    Args:
        settings: trial settings; see `trainables.tune.trainable.DistillationTrainable`.
        travelling: files of the study.
        places: this node's folder for each of the driver's teacher paths.
    """

    def here(path: str | None) -> str | None:
        return str(places[path] / Path(path).name) if path is not None else None

    found = {
        **settings,
        "teacher_path": here(settings.get("teacher_path")),
        "own_teachers": {method: here(path) for method, path in settings.get("own_teachers", {}).items()},
        "further_teachers": [
            {**each, "paths": {method: here(path) for method, path in each["paths"].items()}}
            for each in settings.get("further_teachers", [])
        ],
    }
    if settings.get("student_path") is not None:
        name = Path(settings["student_path"]).name
        found["student_path"] = joined(travelling.storage, f"{_students(travelling.study)}/{name}")
    return found


def upload_student(student: Path, uri: str, *, seconds: float = _SECONDS_FOR_STUDENT) -> None:
    """Copy a student's two files to storage, and wait if storage is away for some time.

    Args:
        student: student file. The file with examples is next to it.
        uri: URI of the student file.
        seconds: how long to wait for storage.

    Raises:
        OSError: storage refuses the files, or was away for longer.
    """
    place, separator, query = uri.partition("?")
    folder, _, name = place.rpartition("/")
    deadline = time.monotonic() + seconds
    while True:
        remote = RemoteFolder(f"{folder}{separator}{query}")
        try:
            # The student comes last. The driver fetches both files as soon as the student exists.
            remote.write_from(example_path(Path(name)).name, example_path(student))
            remote.write_from(name, student)
        except RemoteFolderError as error:
            if error.is_final or time.monotonic() > deadline:
                raise
            time.sleep(_SECONDS_BETWEEN_TRIES)
        else:
            return


def fetch_student(remote: RemoteFolder, student: Path) -> None:
    """Copy a student's two files from storage into the driver's folder, and remove them from storage.

    Args:
        remote: folder of the students; see `Travelling.students`.
        student: path of the student file on this machine.

    Raises:
        FileNotFoundError: storage does not have the student.
        OSError: storage does not answer, or the disk refuses the files.
    """
    for path in (example_path(student), student):
        with atomic_file(path) as file:
            remote.read_into(path.name, file)
    for path in (student, example_path(student)):
        remote.delete(path.name)


class TrainingCopy:
    """Copy on storage of a teacher's training checkpoint. Another node resumes from it if the first node is lost.

    Storage errors are ignored: the training then begins again after the loss of a node.

    Args:
        storage: URI of the storage for checkpoints.
        study: identifier of the study.
        training: local folder with the training checkpoint.
    """

    def __init__(self, storage: str, study: str, training: Path) -> None:
        self._remote = RemoteFolder(joined(storage, f"teachers/{study}"))
        self._training = training
        self._copied_at = time.monotonic()

    @property
    def _name(self) -> str:
        return f"{self._training.name}/{CHECKPOINT_FILE}"

    def fetch(self) -> None:
        """Fetch the checkpoint, if there is none on this node and one on storage."""
        path = self._training / CHECKPOINT_FILE
        if path.exists():
            return
        with suppress(OSError), atomic_file(path) as file:
            self._remote.read_into(self._name, file)

    def copy_after(self, progress: Callable[[int, int, float], None]) -> Callable[[int, int, float], None]:
        """Return a function to call after each epoch: it calls `progress`, and copies the checkpoint if due."""

        def report_epoch(epoch: int, epochs: int, accuracy: float) -> None:
            progress(epoch, epochs, accuracy)
            if time.monotonic() - self._copied_at >= _SECONDS_BETWEEN_COPIES:
                self.copy()

        return report_epoch

    def copy(self) -> None:
        """Copy the checkpoint to storage now."""
        self._copied_at = time.monotonic()
        with suppress(OSError):
            self._remote.write_from(self._name, self._training / CHECKPOINT_FILE)

    def delete(self) -> None:
        """Remove the checkpoint from storage."""
        self._remote.delete(self._name)
