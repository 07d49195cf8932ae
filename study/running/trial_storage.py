"""Storage of trial checkpoints: a folder, or a location of `pyarrow.fs` that all nodes can reach.

Only the two newest checkpoints of a trial are kept. The checkpoints of an ended trial are removed, because the records
hold the result.
"""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from study.plan.plan import StudyPlan
from study.search.searcher import WORKER_RESTARTS
from trainables.process.errors import StudyError
from trainables.storage.files import check_writable
from trainables.storage.remote_folder import RemoteFolder, RemoteFolderError, check_remote_folder
from trainables.storage.uris import is_uri

_CHECKPOINTS_KEPT: Final = 2
_RUN: Final = re.compile(r"run-(\d+)")
_LIFE: Final = "+"
_CHECKPOINT: Final = "checkpoint_"  # as Tune calls them


class TrialStorage:
    """Checkpoints of a study's trials, over all runs of the study.

    Args:
        plan: the study. With a URI for checkpoints, Ray must run.

    Raises:
        StudyError: the storage does not answer.
    """

    def __init__(self, plan: StudyPlan) -> None:
        place = plan.storage_path
        self._remote: RemoteFolder | None = None
        self._shared: Any = None
        if place is not None and is_uri(place):
            from study.running.shared_storage import share  # imports Ray

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
        # An object store deletes slowly, and all trials share the thread that receives Tune's reports.
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
        """Tune's arguments for a new run, stored next to the earlier runs."""
        return {"name": f"run-{self._next}", "storage_path": self._root, "storage_filesystem": self._shared}

    def new_checkpoint(self, trial_id: str, number: int) -> Path:
        """Return the folder for a checkpoint of this run that is not written by Tune, but named as Tune would.

        Args:
            trial_id: identifier of the trial.
            number: index of the checkpoint, from 0.
        """
        return Path(self.folder_of(trial_id)) / f"{_CHECKPOINT}{number:06}"

    def folder_of(self, trial_id: str) -> str:
        """Return the folder of a trial in this run."""
        return f"{self._root}/run-{self._next}/{trial_id}"

    def checkpoints_of(self, trial_id: str) -> list[Any]:
        """Return the checkpoints from which a trial may resume, newest first.

        A checkpoint is a folder, or a Tune checkpoint for a node to fetch. All runs of the study count, newest run
        first, and all processes of the trial in each run.

        Raises:
            StudyError: the storage does not answer.
        """
        runs = [self._next, *self._runs]
        folders = (f"{self._root}/run-{run}/{life}" for run in runs for life in _lives_of(trial_id))
        paths = [f"{folder}/{name}" for folder in folders for name in _newest_first(self._names(folder))]
        if self._shared is None:
            return list(paths)
        from ray import tune

        return [tune.Checkpoint(path, filesystem=self._shared) for path in paths]

    def newest_of(self, trial_id: str) -> list[Any]:
        """Return the same as `checkpoints_of`, but nothing if the storage does not answer.

        In a running study a trial that starts again from the beginning is better than an error.
        """
        try:
            return self.checkpoints_of(trial_id)
        except StudyError:
            return []

    def keep_newest(self, newest: str) -> None:
        """Remove all but the two newest checkpoints of a trial.

        Tune's own `num_to_keep` writes a whole snapshot each time.

        Args:
            newest: path of the newest checkpoint.
        """
        folder = Path(newest).parent.as_posix()
        if self._remover is not None:
            self._remover.submit(self._remove_old, folder)
        else:
            for name in _newest_first(self._names(folder))[_CHECKPOINTS_KEPT:]:
                shutil.rmtree(f"{folder}/{name}", ignore_errors=True)

    def clear(self, trial_path: str | None) -> None:
        """Remove the folders of an ended trial, including all checkpoints.

        Args:
            trial_path: folder of the trial in this run, if the trial has one.
        """
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
        """Wait for pending removals."""
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
    """Return the folder name of a study in a storage shared by studies. A renamed study keeps the existing folder.

    Args:
        plan: the study.
        there: names of the existing folders.
    """
    ending = f"-{plan.study_id[:8]}"
    return next((name for name in sorted(there) if name.endswith(ending)), f"{plan.name}{ending}")


def life_folder(trial_id: str, life: int) -> str:
    """Return the folder name of a trial for one process of a run.

    Args:
        trial_id: identifier of the trial.
        life: index of the process, from 0.
    """
    return f"{trial_id}{_LIFE}{life}" if life else trial_id


def _lives_of(trial_id: str) -> list[str]:
    """Return all folder names that a trial may have in one run, newest first."""
    return [life_folder(trial_id, life) for life in range(WORKER_RESTARTS, -1, -1)]


def _newest_first(names: set[str]) -> list[str]:
    return sorted((name for name in names if name.startswith(_CHECKPOINT)), reverse=True)


def check_trial_storage(plan: StudyPlan) -> None:
    """Check that checkpoints can be written to the plan's storage, before any work.

    Raises:
        StudyError: the storage does not answer, refuses access or lacks the bucket, or the folder is not writable.
    """
    place = plan.storage_path
    if place is None:
        return
    try:
        if is_uri(place):
            check_remote_folder(place, flag="--storage-path", purpose="checkpoints")
            return
        check_writable(Path(place))
    except RemoteFolderError as error:
        raise StudyError(str(error)) from None
    except OSError as error:
        raise StudyError(
            f"--storage-path: cannot write in {place} ({error.strerror}); name a folder that you may write and that "
            "all nodes see, or a URI such as s3://BUCKET/FOLDER"
        ) from None
