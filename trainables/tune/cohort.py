"""Trials trained as one pack from beginning to end.

The rounding of a packed trial depends on the other trials in the pack. The members of a cohort are therefore fixed:
they begin together and train epoch by epoch in step. The same members give the same bits again, also after a crash: a
cohort resumes from checkpoints of one epoch, or from the beginning.
"""

import time
from collections.abc import Collection, Iterator, Sequence
from pathlib import Path
from typing import Any

from trainables.packing.server import PackedTrials
from trainables.run.checkpoint import CheckpointError, load_checkpoint, read_epoch, save_checkpoint
from trainables.tune.session import BeginRun, Reporting, save_student_if_requested


class Cohort:
    """Trials of one pack, with reports.

    Args:
        settings: settings of each trial; see `trainables.tune.trainable.DistillationTrainable`. `has_ended` marks a
            trial that has ended before. It trains again for the sake of the others, and reports nothing.
        begin: builds a trial's run from the settings.
    """

    def __init__(self, settings: Sequence[dict[str, Any]], *, begin: BeginRun) -> None:
        self._trials = PackedTrials(begin)
        self._settings = {each["trial_id"]: {**each, "checkpoints": []} for each in settings}
        self._told: set[str] = set()
        self._silent = {each["trial_id"] for each in settings if each.get("has_ended")}
        self._reporting: dict[str, Reporting] = {}
        self._active: list[str] = []
        for each in settings:
            trial_id = each["trial_id"]
            reporting = self._reporting[trial_id] = Reporting(each, trials=len(settings))
            try:
                self._trials.begin(trial_id, self._settings[trial_id])
                self._active.append(trial_id)
            except Exception as error:
                reporting.fail(error)
        self._resume({each["trial_id"]: each["checkpoints"] for each in settings})

    @property
    def running(self) -> list[str]:
        """Trials to report on that have not ended."""
        return [trial_id for trial_id in self._active if trial_id not in self._silent]

    def run(self) -> Iterator[dict[str, dict[str, Any]]]:
        """Train and evaluate. Yield the reports that are due, by trial, whenever there are any."""
        if failed := self._failures():
            yield failed
        while self.running:
            reports: dict[str, dict[str, Any]] = {}
            results = self._trials.train(self._active)
            for trial_id, result in results.items():
                reporting = self._reporting[trial_id]
                if result.error is not None:
                    reporting.fail(result.error)
                    self._end(trial_id)
                    continue
                if trial_id not in self._silent:
                    save_student_if_requested(result.run, reporting.student_path)
                report = reporting.add(result.run, result.measures)
                if report is not None:
                    reports[trial_id] = report
                    reporting.open()
                if result.run.finished:
                    self._end(trial_id)
            reports = {name: each for name, each in (reports | self._failures()).items() if name not in self._silent}
            if reports:
                yield reports

    def stop(self, trial_ids: Collection[str]) -> None:
        """End trials before their last epoch."""
        for trial_id in trial_ids:
            self._end(trial_id)

    def save(self, trial_id: str, folder: Path) -> None:
        """Write a checkpoint of a trial."""
        self._reporting[trial_id].saved_at = time.monotonic()
        save_checkpoint(self._trials.run_of(trial_id), folder)

    def _end(self, trial_id: str) -> None:
        if trial_id in self._active:
            self._active.remove(trial_id)

    def _failures(self) -> dict[str, dict[str, Any]]:
        """Return the report of each trial that has failed since the last call."""
        failed = {name for name, each in self._reporting.items() if each.error is not None} - self._told
        self._told |= failed
        return {name: self._reporting[name].failed() for name in sorted(failed - self._silent)}

    def _resume(self, checkpoints: dict[str, list[Any]]) -> None:
        """Load the newest checkpoints of one epoch. Without such an epoch, all trials start from the beginning."""
        if self._silent or not self._active:
            return
        found = [{epoch: path for path in reversed(checkpoints[name]) if (epoch := read_epoch(Path(path)))}
                 for name in self._active]  # fmt: skip
        for epoch in sorted(set.intersection(*map(set, found)), reverse=True):
            try:
                for trial_id, paths in zip(self._active, found, strict=True):
                    load_checkpoint(self._trials.run_of(trial_id), Path(paths[epoch]))
            except CheckpointError:
                continue
            return
        for trial_id in self._active:
            self._trials.begin(trial_id, self._settings[trial_id])
