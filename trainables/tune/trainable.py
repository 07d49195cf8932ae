"""The trial as Ray Tune runs it: glue only; everything it calls runs, and is tested, without Ray."""

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from ray import tune

from trainables.costs.epoch import run_epoch
from trainables.process.threads import use_one_thread
from trainables.run.run import DistillationRun
from trainables.tune.session import (
    TrialSession,
    add_note,
    begin_run,
)
from trainables.tune.settings import resolved


class NothingKept(NamedTuple):
    """What Tune is told instead of where a checkpoint is."""

    checkpoint: None = None
    metrics: Mapping[str, Any] = {}


class DistillationTrainable(tune.Trainable):
    """One trial; a step is an epoch, or as many as there is time for until the next report.

    Its Tune config holds `config` (the fields of `TrialConfig`), `data_root`, `teacher_path` (None where no teacher
    is needed), `own_teachers` (paths by the methods that have a teacher to themselves), `teacher_outputs` (`location`
    and `dtype` of the stored ones, or a reference to that, or None for a live teacher), `device`, `checkpoints`:
    folders, or Tune's checkpoints on storage, to go on from, newest first, one that is damaged being passed over;
    `seconds_between_reports`, for which it goes on training before it tells of its epochs, 0 to tell of each; and,
    where it confirms, `reads_test`, whether its last epoch reports the accuracy on the test split, and `student_path`,
    where its student is kept, if it is.

    An error in an epoch ends the trial, not the study: the last result then carries it under `failed`. Only a
    process that dies is Tune's to start again.
    """

    _session: TrialSession

    def setup(self, config: dict[str, Any]) -> None:
        """Take a trial in a new process; its first step begins it, so that all that can take long is a step."""
        use_one_thread()
        self._to_begin: dict[str, Any] | None = config

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial in the same process, which is what makes short trials cheap."""
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
        """Train and evaluate, until a report is due; see `TrialSession.step`."""
        self._begin_if_new()
        return self._session.step()

    def save(self, checkpoint_dir: str | None = None) -> Any:
        """Keep the trial's state; one that cannot be kept costs a resume time, and is no reason to fail."""
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            try:
                return super().save(checkpoint_dir or folder)
            except OSError as error:
                add_note(f"a checkpoint of {self.trial_name} could not be written ({error}); it goes on without")
                return NothingKept()

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Write the trial's state."""
        self._session.save(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: str) -> None:  # type: ignore[override]
        """Go on from a trial's state, in another process than the one that wrote it."""
        self._begin_if_new()
        self._session.load(Path(checkpoint))
