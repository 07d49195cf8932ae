"""`python -m tests.study.killable_driver FOLDER NAME ...`: the launcher, with slow trials that log their epochs.

Every epoch that a trial begins adds a line to `FOLDER/work`. ASHA's rungs are written to `FOLDER/rungs-NAME.json` after
each result, and to `FOLDER/restored-NAME.json` after they were rebuilt. An epoch takes a quarter of a second, and every
epoch is saved. Studies of larger networks save every epoch too, with epochs of a second. Trials run on Ray or, with
`--executor in-process`, in the driver.
"""

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from study import launch
from study.search.rungs import Rungs
from tests.study.faulty import FaultyTrainable, begin_and_note
from trainables.tune import session
from trainables.tune import trainable as distillation

SECONDS_PER_EPOCH = 0.25


def _write(path: Path, rungs: Rungs) -> None:
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps({str(epochs): dict(scores) for epochs, scores in rungs.scores.items()}))
    partial.replace(path)


def main() -> None:
    folder = Path(sys.argv.pop(1))
    name = sys.argv.pop(1)
    attributes = {"folder": folder, "seconds_per_epoch": SECONDS_PER_EPOCH, "saves_every_epoch": True}
    trainable = type("KillableTrainable", (FaultyTrainable,), attributes)
    made, entered, restored = Rungs.__init__, Rungs.enter, []

    def on_made(self: Rungs, *args: Any) -> None:
        made(self, *args)
        _write(folder / f"restored-{name}.json", self)
        restored.append(self)

    def on_entered(self: Rungs, *args: Any) -> bool:
        decision = entered(self, *args)
        if self in restored:
            _write(folder / f"rungs-{name}.json", self)
        return decision

    with (
        mock.patch.object(distillation, "DistillationTrainable", trainable),
        mock.patch.object(session, "begin_run", begin_and_note(folder, SECONDS_PER_EPOCH)),
        mock.patch.object(session, "SECONDS_BETWEEN_CHECKPOINTS", 0.0),
        mock.patch.object(Rungs, "__init__", on_made),
        mock.patch.object(Rungs, "enter", on_entered),
    ):
        launch.main()


if __name__ == "__main__":
    main()
