"""Where Tune keeps the checkpoints of trials that run: a folder, or what `pyarrow.fs` knows that all nodes reach.

Only the newest of each trial are kept, and those of a trial that has ended are removed: its record is elsewhere.
"""

import re
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pyarrow.fs as pafs
import ray
from ray import tune

from study.plan.plan import StudyPlan
from study.search.searcher import WORKER_RESTARTS
from trainables.process.errors import StudyError
from trainables.storage.remote_folder import RemoteFolder, RemoteFolderError, check_remote_folder, open_storage
from trainables.storage.uris import is_uri, redact_place

_CHECKPOINTS_KEPT: Final = 2
_RUN: Final = re.compile(r"run-(\d+)")
_LIFE: Final = "+"


class SharedStorage(pafs.SubTreeFileSystem):
    """The folder under a URI as a file system, which Tune hands to its workers.

    Tune also pickles it into its own files. Where the URI has secrets, the pickle refers to them in Ray's object store
    and does not contain them.

    Args:
        where: the URI, or a reference to it.
    """

    def __init__(self, where: Any) -> None:
        uri = ray.get(where) if isinstance(where, ray.ObjectRef) else where
        system, path = open_storage(uri)
        super().__init__(path, system)
        self._where = where

    def __reduce__(self) -> tuple[type["SharedStorage"], tuple[Any]]:
        return SharedStorage, (self._where,)


def share(uri: str) -> SharedStorage:
    """The file system under a URI, its secrets kept in Ray's object store; Ray has to run."""
    return SharedStorage(uri if redact_place(uri) == uri else ray.put(uri))


class TrialStorage:
    """Checkpoints of one study's trials, over all its runs.

    Args:
        plan: the study. Ray has to run.

    Raises:
        StudyError: the storage does not answer.
    """

    def __init__(self, plan: StudyPlan) -> None:
        place = plan.storage_path
        self._remote: RemoteFolder | None = None
        self._shared: SharedStorage | None = None
        if place is not None and is_uri(place):
            self._remote, self._shared = RemoteFolder(place), share(place)
            self._root = _folder_of(plan, self._names(""))
        else:
            own = "tune" if place is None else _folder_of(plan, self._names(place))
            folder = (plan.directory if place is None else Path(place)) / own
            self._root = str(folder.absolute())
            folder.mkdir(parents=True, exist_ok=True)
        found = (_RUN.fullmatch(name) for name in self._names(self._root))
        self._runs = sorted((int(run[1]) for run in found if run), reverse=True)
        self._next = 1 + max(self._runs, default=0)
        # An object store takes long to remove something, and all trials share the thread in which Tune tells of them.
        self._remover = ThreadPoolExecutor(1, "remove-checkpoints") if self._remote is not None else None

    def _names(self, folder: str) -> set[str]:
        if self._remote is not None:
            try:
                return self._remote.names(folder)
            except RemoteFolderError as error:
                raise StudyError(f"--storage-path: {error}") from None
        return {path.name for path in Path(folder).glob("*")}

    @property
    def next_run(self) -> dict[str, Any]:
        """Tune's arguments for a run that writes beside those before it."""
        return {"name": f"run-{self._next}", "storage_path": self._root, "storage_filesystem": self._shared}

    def checkpoints_of(self, trial_id: str) -> list[str | tune.Checkpoint]:
        """Where a trial may go on from, newest first: folders, or checkpoints that a node has to fetch.

        They are of all runs of the study, this one's first, and of all processes that the trial had in each.

        Raises:
            StudyError: the storage does not answer.
        """
        runs = [self._next, *self._runs]
        folders = (f"{self._root}/run-{run}/{life}" for run in runs for life in _lives_of(trial_id))
        paths = [f"{folder}/{name}" for folder in folders for name in _newest_first(self._names(folder))]
        if self._shared is None:
            return list(paths)
        return [tune.Checkpoint(path, filesystem=self._shared) for path in paths]

    def newest_of(self, trial_id: str) -> list[str | tune.Checkpoint]:
        """The same while a study runs, where none is better than no study: a trial then begins anew."""
        try:
            return self.checkpoints_of(trial_id)
        except StudyError:
            return []

    def keep_newest(self, newest: tune.Checkpoint) -> None:
        """Remove a trial's checkpoints but the newest. Tune's own `num_to_keep` writes its whole snapshot each time."""
        folder = Path(newest.path).parent.as_posix()
        if self._remover is not None:
            self._remover.submit(self._remove_old, folder)
        else:
            for name in _newest_first(self._names(folder))[_CHECKPOINTS_KEPT:]:
                shutil.rmtree(f"{folder}/{name}", ignore_errors=True)

    def clear(self, trial_path: str | None) -> None:
        """Remove everything of a trial that has ended."""
        if not trial_path:
            return
        now, trial_id = Path(trial_path).parent.as_posix(), Path(trial_path).name.partition(_LIFE)[0]
        runs = [now, *(f"{self._root}/run-{run}" for run in self._runs)]
        for folder in (f"{run}/{life}" for run in runs for life in _lives_of(trial_id)):
            if self._remover is not None:
                self._remover.submit(self._remove, folder)
            else:
                shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Wait until what is to be removed is."""
        if self._remover is not None:
            self._remover.shutdown()

    def _remove_old(self, folder: str) -> None:
        assert self._remote is not None
        for name in _newest_first(self._remote.names(folder))[_CHECKPOINTS_KEPT:]:
            self._remote.delete_folder(f"{folder}/{name}")

    def _remove(self, folder: str) -> None:
        assert self._remote is not None
        self._remote.delete_folder(folder)


def _folder_of(plan: StudyPlan, there: set[str]) -> str:
    """A study's folder in a storage that studies share: of a study that was renamed, the one that it has.

    Args:
        plan: the study.
        there: names of the folders that are there.
    """
    ending = f"-{plan.study_id[:8]}"
    return next((name for name in sorted(there) if name.endswith(ending)), f"{plan.name}{ending}")


def life_folder(trial_id: str, life: int) -> str:
    """What the folder of a trial is called in that one, counted from 0, of the processes that it has in a run."""
    return f"{trial_id}{_LIFE}{life}" if life else trial_id


def _lives_of(trial_id: str) -> list[str]:
    """The folders that a trial may have in one run, newest first."""
    return [life_folder(trial_id, life) for life in range(WORKER_RESTARTS, -1, -1)]


def _newest_first(names: set[str]) -> list[str]:
    return sorted((name for name in names if name.startswith("checkpoint_")), reverse=True)


def check_trial_storage(plan: StudyPlan) -> None:
    """Check, before any work, that checkpoints can be written where the plan says.

    Raises:
        StudyError: the storage does not answer, refuses, or has no such bucket, or a folder cannot be written.
    """
    place = plan.storage_path
    if place is None:
        return
    try:
        if is_uri(place):
            check_remote_folder(place, flag="--storage-path", purpose="checkpoints")
            return
        folder = Path(place)
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except RemoteFolderError as error:
        raise StudyError(str(error)) from None
    except OSError as error:
        raise StudyError(
            f"--storage-path: cannot write in {place} ({error.strerror}); name a folder that you may write and that "
            "all nodes see, or a URI such as s3://BUCKET/FOLDER"
        ) from None
