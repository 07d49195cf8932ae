"""Storage for trial checkpoints: a folder, or a `pyarrow.fs` location reachable from all nodes.

Only a trial's two newest checkpoints are kept. An ended trial's checkpoints are removed, because the records hold the
result.
"""

import re
import shutil
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

from study.plan.plan import StudyPlan
from trainables.process.errors import StudyError
from trainables.storage.files import check_writable
from trainables.storage.remote_folder import RemoteFolder, RemoteFolderError, check_remote_folder
from trainables.storage.uris import is_uri

_CHECKPOINTS_KEPT: Final = 2
_RUN: Final = re.compile(r"run-(\d+)")
_LIFE: Final = "+"
_LIFE_FOLDER: Final = re.compile(r"(.+?)(?:\+(\d+))?")
_CHECKPOINT: Final = "checkpoint_"  # as Tune calls them


class TrialStorage:
    """Checkpoints for a study's trials, over all runs.

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
        # Object stores delete slowly, and all trials share the thread for Tune's reports.
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
        """Return the folder for a checkpoint in this run without Tune, named as Tune would name it.

        Args:
            trial_id: identifier of the trial.
            number: checkpoint index, from 0.
        """
        return Path(self.folder_of(trial_id)) / f"{_CHECKPOINT}{number:06}"

    def folder_of(self, trial_id: str) -> str:
        """Return a trial's folder in this run."""
        return f"{self._root}/run-{self._next}/{trial_id}"

    def checkpoints_of(self, trial_id: str) -> list[Any]:
        """Return a trial's checkpoints for resuming, newest first.

        A checkpoint is a folder, or a Tune checkpoint for a node to fetch. The list covers all runs, newest run first,
        and within each run all processes of the trial.

        Raises:
            StudyError: the storage does not answer.
        """
        runs = [self._next, *self._runs]
        folders = [folder for run in runs for folder in self._lives_of(trial_id, f"{self._root}/run-{run}")]
        paths = [f"{folder}/{name}" for folder in folders for name in _newest_first(self._names(folder))]
        if self._shared is None:
            return list(paths)
        from ray import tune

        return [tune.Checkpoint(path, filesystem=self._shared) for path in paths]

    def newest_of(self, trial_id: str) -> list[Any]:
        """Return the same as `checkpoints_of`, but nothing if the storage does not answer.

        In a running study, restarting a trial from the beginning is better than an error.
        """
        try:
            return self.checkpoints_of(trial_id)
        except StudyError:
            return []

    def keep_newest(self, newest: str) -> None:
        """Remove all but the two newest checkpoints of a trial.

        Tune's own `num_to_keep` writes a whole snapshot each time.

        Args:
            newest: path to the newest checkpoint.
        """
        folder = Path(newest).parent.as_posix()
        if self._remover is not None:
            self._remover.submit(self._remove_old, folder)
        else:
            for name in _newest_first(self._names(folder))[_CHECKPOINTS_KEPT:]:
                shutil.rmtree(f"{folder}/{name}", ignore_errors=True)

    def clear(self, trial_path: str | None) -> None:
        """Remove an ended trial's folders, including all checkpoints.

        Args:
            trial_path: the trial's folder in this run, if any.
        """
        if not trial_path:
            return
        now, trial_id = Path(trial_path).parent.as_posix(), Path(trial_path).name.partition(_LIFE)[0]
        runs = [now, *(f"{self._root}/run-{run}" for run in self._runs)]
        if self._remover is not None:
            self._remover.submit(self._remove, trial_id, runs)
            return
        for folder in (folder for run in runs for folder in self._lives_of(trial_id, run)):
            shutil.rmtree(folder, ignore_errors=True)

    def close(self) -> None:
        """Wait for pending removals."""
        if self._remover is not None:
            self._remover.shutdown()

    def _remove_old(self, folder: str) -> None:
        assert self._remote is not None
        for name in _newest_first(self._remote.names(folder))[_CHECKPOINTS_KEPT:]:
            self._remote.delete_folder(f"{folder}/{name}")

    def _remove(self, trial_id: str, runs: list[str]) -> None:
        assert self._remote is not None
        for run in runs:
            for folder in self._lives_of(trial_id, run):
                self._remote.delete_folder(folder)

    def _lives_of(self, trial_id: str, run: str) -> list[str]:
        """Return a trial's folders in one run, the newest process first."""
        found = (_LIFE_FOLDER.fullmatch(name) for name in self._names(run))
        lives = sorted((int(each[2] or 0) for each in found if each and each[1] == trial_id), reverse=True)
        return [f"{run}/{life_folder(trial_id, life)}" for life in lives]


def _folder_of(plan: StudyPlan, there: set[str]) -> str:
    """Return a study's folder name in a shared storage. A renamed study keeps the existing folder.

    Args:
        plan: the study.
        there: names of the existing folders.
    """
    ending = f"-{plan.study_id[:8]}"
    return next((name for name in sorted(there) if name.endswith(ending)), f"{plan.name}{ending}")


def life_folder(trial_id: str, life: int) -> str:
    """Return a trial's folder name for one process of a run.

    Args:
        trial_id: identifier of the trial.
        life: process index, from 0.
    """
    return f"{trial_id}{_LIFE}{life}" if life else trial_id


def _newest_first(names: set[str]) -> list[str]:
    return sorted((name for name in names if name.startswith(_CHECKPOINT)), reverse=True)


def check_trial_storage(plan: StudyPlan) -> None:
    """Check, before any work, that the plan's storage accepts checkpoints.

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
