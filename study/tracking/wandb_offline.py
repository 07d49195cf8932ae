"""Offline runs of Weights & Biases: one run per trial, written by the wandb library without any network.

A run is written after the trial has ended, since wandb would append a resumed offline run as a second run. To upload
the folders, run `wandb sync` on them.
"""

import logging
import os
import re
import shutil
from typing import Any, Final

# Set before wandb is imported: no error reports and no requests.
os.environ.setdefault("WANDB_ERROR_REPORTING", "false")
os.environ.setdefault("WANDB_SILENT", "true")

import wandb

from study.ledger.entry import TrialEntry
from study.plan.plan import StudyPlan
from study.tracking.experiment import experiment_name
from study.tracking.trial_writer import Written, exact_settings

FOLDER: Final = "wandb"
_LONGEST_PROJECT: Final = 128  # characters


class OfflineWandbWriter:
    """Writer for offline runs.

    Args:
        plan: the study.
    """

    title = "Weights & Biases"

    def __init__(self, plan: StudyPlan) -> None:
        self.folder = plan.directory / FOLDER
        self._plan = plan
        logging.getLogger("wandb").setLevel(logging.ERROR)

    def write(self, entry: TrialEntry, written: Written) -> Written:
        """Write an ended trial's run; see `study.tracking.trial_writer.TrialWriter`."""
        if entry.status is None:
            return written
        run_id = f"{self._plan.study_id[:8]}-{entry.trial_id}"  # two studies may have one name
        run_id += f"-{entry.attempt}" if entry.attempt > 1 else ""
        for partial in self.folder.glob(f"offline-run-*-{run_id}"):  # from a killed process
            shutil.rmtree(partial)
        run = wandb.init(
            project=re.sub(r"[/\\#?%:\s]+", "-", experiment_name(self._plan))[:_LONGEST_PROJECT],
            dir=str(self._plan.directory),
            id=run_id,
            name=entry.name,
            group=self._plan.name,
            job_type=entry.stage,
            config=exact_settings(self._plan, entry),
            mode="offline",
            reinit="create_new",
            settings=_settings(),
        )
        for epoch in sorted(entry.epochs):
            run.log(dict(entry.epochs[epoch]), step=epoch)
        run.summary.update({"status": entry.status, "trial_id": entry.trial_id, "config_id": entry.config_id})
        run.finish(exit_code=int(entry.status == "failed"))
        return Written(entry.attempt, max(entry.epochs, default=0), ended=True)

    def close(self) -> None:
        """End wandb's background process."""
        wandb.teardown()


def _settings() -> Any:
    """Return settings that limit wandb to reading and writing the run."""
    return wandb.Settings(
        console="off", disable_git=True, disable_code=True, save_code=False, silent=True, symlink=False,
        x_disable_meta=True, x_save_requirements=False, x_disable_stats=True, x_disable_machine_info=True,
    )  # fmt: skip
