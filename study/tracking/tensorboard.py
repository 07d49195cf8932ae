"""Event files for TensorBoard: one folder per trial, with every measure by epoch and the settings as hyperparameters.

tensorboardX, installed with Ray, writes the files. Each folder is a run in TensorBoard, under the stage, e.g.
`search/w16-T4.0-s0`.
"""

import re
from pathlib import Path
from typing import Final

from tensorboardX.event_file_writer import EventsWriter
from tensorboardX.proto.event_pb2 import Event, SessionLog
from tensorboardX.summary import Summary, hparams

from study.ledger.entry import TrialEntry
from study.plan.plan import StudyPlan
from study.tracking.trial_writer import Written, exact_settings
from trainables.spec.measures import SHARPNESS_GAP

FOLDER: Final = "tensorboard"


class TensorBoardWriter:
    """Writer for TensorBoard's event files.

    Args:
        plan: the study.
    """

    title = "TensorBoard"

    def __init__(self, plan: StudyPlan) -> None:
        self.folder = plan.directory / FOLDER
        self._plan = plan
        self._open: dict[str, EventsWriter] = {}

    def write(self, entry: TrialEntry, written: Written) -> Written:
        """Append a trial's new epochs; see `study.tracking.trial_writer.TrialWriter`."""
        file = self._open.get(entry.trial_id)
        if file is None:
            file = self._opened(entry, written.epoch)
            for summary in self._hyperparameters(entry)[:2]:
                file.write_event(Event(wall_time=entry.started, summary=summary))
        epochs = sorted(epoch for epoch in list(entry.epochs) if epoch > written.epoch)
        for epoch in epochs:
            values = [Summary.Value(tag=name, simple_value=each) for name, each in entry.epochs[epoch].items()]
            file.write_event(Event(wall_time=entry.epoch_times[epoch], step=epoch, summary=Summary(value=values)))
        if entry.status is not None:
            if entry.status != "failed":
                end = self._hyperparameters(entry)[2]
                file.write_event(Event(wall_time=entry.ended or entry.started, summary=end))
            self._open.pop(entry.trial_id).close()
        else:
            file.flush()
        return Written(entry.attempt, max(epochs, default=written.epoch), entry.status is not None)

    def close(self) -> None:
        """Close the files for running trials."""
        while self._open:
            self._open.popitem()[1].close()

    def _hyperparameters(self, entry: TrialEntry) -> tuple[Summary, Summary, Summary]:
        """Return the summaries for the hyperparameter table: columns, start of the trial, and end."""
        settings = {**exact_settings(self._plan, entry), "stage": entry.stage}
        measures = dict.fromkeys((self._plan.objective, SHARPNESS_GAP))
        found: tuple[Summary, Summary, Summary] = hparams(settings, measures)
        return found

    def _opened(self, entry: TrialEntry, done: int) -> EventsWriter:
        """Open a new file for a trial. TensorBoard then discards steps after `done`, written by a killed process."""
        folder = trial_folder(self.folder, entry)
        folder.mkdir(parents=True, exist_ok=True)
        number = len(list(folder.iterdir()))
        file = self._open[entry.trial_id] = EventsWriter(str(folder / "events"), f".{number}")
        if number:
            start = SessionLog(status=SessionLog.SessionStatus.Value("START"))
            file.write_event(Event(wall_time=entry.started, step=done + 1, session_log=start))
        return file


def trial_folder(folder: Path, entry: TrialEntry) -> Path:
    """Return a trial's folder within the folder for all trials."""
    return folder / entry.stage / re.sub(r"[^\w.#+=-]", "_", entry.name)
