"""Ray Tune trainable for a trial; all called code works, and is tested, without Ray."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ray import tune

from trainables.costs.epoch import run_epoch
from trainables.process.threads import use_one_thread
from trainables.run.run import DistillationRun
from trainables.tune.preemption import Preemption
from trainables.tune.session import (
    TrialSession,
    begin_run,
    note_unwritten_checkpoint,
)
from trainables.tune.settings import resolved


class NoCheckpoint(NamedTuple):
    """Checkpoint result for Tune when no checkpoint could be written."""

    checkpoint: None = None
    metrics: Mapping[str, Any] = {}


class DistillationTrainable(tune.Trainable):
    """One trial; a step is one epoch, or all epochs until the next report is due.

    The Tune config holds:

    - `config`: fields of `TrialConfig`.
    - `data_root`: dataset folder.
    - `teacher_path`: teacher path; None if no teacher is needed.
    - `own_teachers`: paths by method, for methods with a separate teacher.
    - `further_teachers`: for each further `teacher_number` and `split_number`, these two and `paths` by method; the
      shared teacher has the empty name.
    - `teacher_outputs`: the stored outputs' `location` and `dtype`, a reference to these settings in Ray's object
      store, or None for a live teacher.
    - `user_code`: user code sources, as `Sources.to_json`, or a reference to them; optional.
    - `device`: trial device.
    - `checkpoints`: folders or Tune checkpoints to resume from, newest first. Damaged ones are skipped.
    - `seconds_between_reports`: training time before a report is due; 0 to report every epoch.
    - `reads_test`: for confirmation, whether the last epoch reports the accuracy on the test split.
    - `student_path`: for confirmation, path at which the student is saved; optional.
    - `travelling`: reference to the study's files, if the nodes share no folder; see `trainables.tune.travel`. The
      paths of teachers and students are then those on the driver's machine. Optional.

    An error in an epoch ends the trial, not the study; the last result then has the error under `failed`. Tune restarts
    a trial only if the process dies.
    """

    _session: TrialSession

    def setup(self, config: dict[str, Any]) -> None:
        """Receive a trial in a new process; the first step begins the trial, so slow work is part of a step."""
        use_one_thread()
        self._to_begin: dict[str, Any] | None = config
        self._preemption = Preemption()

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Receive another trial in the same process, which saves process start-up for short trials."""
        self._to_begin = new_config
        return True

    def _begin_if_new(self) -> None:
        settings, self._to_begin = self._to_begin, None
        if settings is not None:
            self._session = TrialSession(resolved(settings), begin=self._start, epoch=self._run_epoch)

    def _start(self, settings: dict[str, Any]) -> DistillationRun:
        return begin_run(settings)

    def _run_epoch(self, run: DistillationRun) -> dict[str, float]:
        return run_epoch(run)

    def step(self) -> dict[str, Any]:
        """Train and evaluate until a report is due; see `TrialSession.step`."""
        self._preemption.leave_if_told()
        self._begin_if_new()
        return self._preemption.mark(self._session.step())

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Write a checkpoint; on a write error, add a note and go on, because only time on a resume is lost."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                return super().save(checkpoint_dir or folder)
            except OSError as error:
                note_unwritten_checkpoint(self.trial_name, error)
                return NoCheckpoint()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the trial state."""
        self._session.save(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: str) -> None:  # type: ignore[override]
        """Load a checkpoint written by another process for the same trial."""
        self._begin_if_new()
        self._session.load(Path(checkpoint))
