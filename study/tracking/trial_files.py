"""Trials as files for TensorBoard and Weights & Biases, in the study folder, in addition to MLflow.

A background thread writes the files, so a slow disk never delays a trial. The journal `delivered.jsonl` in each folder
records the written epochs of each trial, so a resumed study appends only the missing epochs.
"""

import json
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Final

from study.ledger.entry import TrialEntry
from study.plan.plan import StudyPlan
from study.tracking.delivery import Delivery, RefusedError, first_line
from study.tracking.trial_writer import TrialWriter, Written
from trainables.process.errors import StudyError

_DELIVERED: Final = "delivered.jsonl"


class TrialFiles:
    """Delivery of trials to one tool's files.

    Args:
        writer: file writer.
        report: receives one line when the files cannot be written and one when writing works again.
    """

    def __init__(self, writer: TrialWriter, *, report: Callable[[str], None]) -> None:
        self._writer = writer
        self._report = report
        self._journal = writer.folder / _DELIVERED
        self._written = _read(self._journal)
        self._delivery = Delivery(self._deliver, report=report, title=writer.title)
        self._is_closed = False

    def put(self, entry: TrialEntry) -> None:
        """Queue a started, progressed or ended trial. Returns at once."""
        self._delivery.put(entry)

    def catch_up(self, entries: Iterable[TrialEntry]) -> None:
        """Queue every ended trial missing from the files."""
        for entry in entries:
            written = self._written.get(entry.trial_id, Written())
            if entry.status is not None and not (written.ended and written.attempt == entry.attempt):
                self.put(entry)

    def abandon(self) -> None:
        """Stop writing, without waiting for the queued trials. A later study run writes the rest."""
        if not self._is_closed:
            self._is_closed = True
            self._delivery.abandon()
            self._writer.close()

    def close(self, patience: float | None = None) -> None:
        """Write the queued trials and close the files. Report an error, which never fails a study.

        Args:
            patience: seconds to wait for an unresponsive disk.
        """
        if self._is_closed:
            return
        self._is_closed = True
        if patience is not None:
            self._delivery.patience = patience
        error = self._delivery.close()
        self._writer.close()
        if error is not None:
            self._report(
                f"{self._writer.title}: {self._writer.folder} is incomplete ({first_line(error)}); "
                "python -m study.sync NAME writes the rest"
            )

    def _deliver(self, entry: TrialEntry) -> None:
        before = self._written.get(entry.trial_id, Written())
        if before.ended and before.attempt == entry.attempt:
            return
        try:
            after = self._writer.write(entry, before)
            if after != before:
                self._journal.parent.mkdir(parents=True, exist_ok=True)
                with self._journal.open("a") as file:  # begins with a new line: the last one may have been cut off
                    file.write("\n" + json.dumps({"trial": entry.trial_id, **after._asdict()}))
        except OSError:
            raise
        except Exception as error:
            raise RefusedError(f"{type(error).__name__}: {error}") from error
        self._written[entry.trial_id] = after


def _read(journal: Path) -> dict[str, Written]:
    found: dict[str, Written] = {}
    if journal.is_file():
        for line in journal.read_text(errors="replace").splitlines():
            try:
                row = json.loads(line)
                trial = row.pop("trial")
                found[trial] = Written(**row)
            except (ValueError, TypeError, KeyError, AttributeError):  # empty, or cut off when the process was killed
                continue
    return found


def make_writers(plan: StudyPlan) -> list[TrialWriter]:
    """Return the file writers requested by the plan. No file is created.

    Args:
        plan: the study.

    Raises:
        StudyError: a library is not installed or cannot be imported.
    """
    writers: list[TrialWriter] = []
    try:
        if plan.tensorboard:
            from study.tracking.tensorboard import TensorBoardWriter

            writers.append(TensorBoardWriter(plan))
        if plan.wandb_offline:
            from study.tracking.wandb_offline import OfflineWandbWriter

            writers.append(OfflineWandbWriter(plan))
    except ImportError as error:
        raise StudyError(
            f"--tensorboard or --wandb-offline cannot be used here ({error}): install the extras 'tensorboard' and "
            "'wandb', or leave the option out"
        ) from None
    return writers
