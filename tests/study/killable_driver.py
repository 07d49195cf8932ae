"""`python -m tests.study.killable_driver FOLDER ...`: the launcher, with trials that take their time and tell of it.

Every epoch that a trial begins is a line in `FOLDER/work`; ASHA's rungs are written to `FOLDER/rungs.json` after each
result and to `FOLDER/restored-PID.json` when they were rebuilt. An epoch takes a quarter of a second and every one is
saved, as one of a second would be: what a study of larger nets does, at four times its pace.
"""

import json
import sys
from pathlib import Path
from typing import Any
from unittest import mock

from study import launch
from study.search import schedulers
from tests.study.faulty import FaultyTrainable
from trainables.tune import trainable as distillation

SECONDS_PER_EPOCH = 0.25


def _write(path: Path, scheduler: Any) -> None:
    rungs = {str(epochs): dict(scores) for epochs, scores in scheduler.rungs.scores.items()}
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(rungs))
    partial.replace(path)


def main() -> None:
    folder = Path(sys.argv.pop(1))
    name = sys.argv.pop(1)
    attributes = {"folder": folder, "seconds_per_epoch": SECONDS_PER_EPOCH, "saves_every_epoch": True}
    trainable = type("KillableTrainable", (FaultyTrainable,), attributes)
    made, heard = schedulers.SearchASHA.__init__, schedulers.SearchASHA.on_trial_result

    def on_made(self: Any, *args: Any, **options: Any) -> None:
        made(self, *args, **options)
        _write(folder / f"restored-{name}.json", self)

    def on_result(self: Any, *args: Any) -> str:
        decision = heard(self, *args)
        _write(folder / f"rungs-{name}.json", self)
        return decision

    with (
        mock.patch.object(distillation, "DistillationTrainable", trainable),
        mock.patch.object(schedulers.SearchASHA, "__init__", on_made),
        mock.patch.object(schedulers.SearchASHA, "on_trial_result", on_result),
    ):
        launch.main()


if __name__ == "__main__":
    main()
