"""Trials with real faults, and studies of such trials in this process, on a real Ray."""

import ctypes
import io
import json
import os
import resource
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import numpy as np
import ray

from study.cli.progress import StudyProgress
from study.ledger.entry import TrialEntry
from study.plan.plan import StudyPlan
from study.running import runner
from tests.study.epochs import before_each_epoch
from trainables.tune import session
from trainables.tune import trainable as distillation

SECONDS_BETWEEN_CHECKPOINTS = session.SECONDS_BETWEEN_CHECKPOINTS
_begin_run = session.begin_run


def _note_work(folder: Path, trial: str, epoch: int, node: str) -> None:
    with (folder / "work").open("a") as file:
        file.write(f"{trial} {epoch} {os.getpid()} {node}\n")


def begin_and_note(folder: Path, seconds_per_epoch: float = 0.0) -> session.BeginRun:
    """Return a function that begins trials without Ray and logs and delays each epoch.

    Each epoch adds a line to `folder/work`.
    """

    def begin(settings: dict[str, Any]) -> Any:
        def before(epoch: int) -> None:
            _note_work(folder, settings["trial_id"], epoch, "here")
            time.sleep(seconds_per_epoch)

        return before_each_epoch(_begin_run(settings), before)

    return begin


class FaultyTrainable(distillation.DistillationTrainable):
    """Real trial with one fault, as described by the file `folder/TRIAL_ID.fault`.

    The file names the kind of fault and the place (see `Lab.inject`). The trial removes it before the fault, unless the
    fault is repeated. Every epoch that is begun adds a line to `folder/work`.
    """

    folder: Path
    seconds_per_epoch = 0.0
    saves_every_epoch: bool | tuple[str, ...] = False

    def _start(self, settings: dict[str, Any]) -> Any:
        self._trial = settings["trial_id"]
        named = self.saves_every_epoch
        saves_every = self._trial in named if isinstance(named, tuple) else named
        session.SECONDS_BETWEEN_CHECKPOINTS = 0.0 if saves_every else SECONDS_BETWEEN_CHECKPOINTS  # in this process
        self._break("begin")

        def before(epoch: int) -> None:
            _note_work(self.folder, self._trial, epoch, ray.get_runtime_context().get_node_id())
            self._break(epoch)
            time.sleep(self.seconds_per_epoch)

        return before_each_epoch(super()._start(settings), before)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._trial = new_config["trial_id"]
        self._break("reset")
        return super().reset_config(new_config)

    def _break(self, place: Any) -> None:
        path = self.folder / f"{self._trial}.fault"
        try:
            fault = json.loads(path.read_text())
        except FileNotFoundError:
            return
        if fault["place"] == place:
            if not fault["again"]:
                path.unlink()
            FAULTS[fault["kind"]](self)


def _hold_the_interpreter(trial: Any) -> None:
    # This C function holds the interpreter lock, so no signal handler and no other Python thread runs.
    ctypes.PyDLL(None).sleep(100_000)


def _use_up_memory(trial: Any) -> None:
    """Allocate more memory than a temporary limit of the process allows."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), hard))
    try:
        np.ones(1 << 30)
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


def _raise(trial: Any) -> None:
    raise ZeroDivisionError("of all things")


def _damage_and_die(how: Callable[[bytes], bytes]) -> Callable[[Any], None]:
    """Return a fault that damages the newest checkpoint and kills the process."""

    def fault(trial: Any) -> None:
        newest = max(Path(trial._storage.trial_fs_path).glob("checkpoint_*/trial.safetensors"))
        newest.write_bytes(how(newest.read_bytes()))
        os.kill(os.getpid(), signal.SIGKILL)

    return fault


def flipped(content: bytes) -> bytes:
    """Return the content with one bit in the middle flipped."""
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


FAULTS = {
    "raises": _raise,
    "sleeps": lambda trial: time.sleep(100_000),
    "holds the interpreter": _hold_the_interpreter,
    "stopped": lambda trial: os.kill(os.getpid(), signal.SIGSTOP),
    "killed": lambda trial: os.kill(os.getpid(), signal.SIGKILL),
    "memory": _use_up_memory,
    "flips a byte of its checkpoint and dies": _damage_and_die(flipped),
    "cuts its checkpoint and dies": _damage_and_die(lambda content: content[: len(content) // 3]),
}


class Begun(NamedTuple):
    """An epoch that a process began."""

    trial: str
    epoch: int
    process: int
    node: str


class Lab:
    """Study in this process with trials that can be made to fail.

    Args:
        folder: folder for files shared by this process and the trials.
        seconds_per_epoch: added duration of an epoch.
        saves_every_epoch: True to save every epoch, as if epochs took seconds; or the trials that do so.

    Attributes:
        said: messages shown to the user.
    """

    def __init__(
        self, folder: Path, seconds_per_epoch: float = 0.0, *, saves_every_epoch: bool | tuple[str, ...] = False
    ) -> None:
        self.folder = folder
        self.said = io.StringIO()
        folder.mkdir()
        attributes = {
            "folder": folder,
            "seconds_per_epoch": seconds_per_epoch,
            "saves_every_epoch": saves_every_epoch,
        }
        self.trainable = type("FaultyTrainableHere", (FaultyTrainable,), attributes)

    def inject(self, trial_id: str, kind: str, place: int | str, *, again: bool = False) -> None:
        """Make a trial fail at a place: an epoch number, `begin`, or `reset` (when a process takes the trial)."""
        content = {"kind": kind, "place": place, "again": again}
        (self.folder / f"{trial_id}.fault").write_text(json.dumps(content))

    def run(self, plan: StudyPlan, **options: Any) -> dict[str, TrialEntry]:
        """Run the rest of the study and return the trials by identifier. Without Ray, no faults occur."""
        if plan.executor == "auto":
            plan = plan.model_copy(update={"executor": "ray"})
        with (
            mock.patch.object(distillation, "DistillationTrainable", self.trainable),
            mock.patch.object(session, "begin_run", begin_and_note(self.folder)),
        ):
            progress = StudyProgress(plan, stream=self.said)
            run, tracker = runner.run_study(plan, progress=progress, command="", versions={}, **options)
        assert tracker.finish("FINISHED") is None
        return run.ledger.entries

    def work(self) -> list[Begun]:
        """Return every epoch that was begun."""
        lines = (self.folder / "work").read_text().split("\n")[:-1]
        return [Begun(trial, int(epoch), int(process), node) for trial, epoch, process, node in map(str.split, lines)]


def numbers_of(entry: TrialEntry) -> dict[int, dict[str, float]]:
    """Return the reported measures of a trial that do not depend on the machine's load, by epoch."""
    kept = ("train/", "val/")
    return {epoch: {k: v for k, v in m.items() if k.startswith(kept)} for epoch, m in entry.epochs.items()}
