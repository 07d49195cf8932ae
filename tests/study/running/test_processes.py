import os
import time
from collections import Counter
from pathlib import Path
from typing import Any
from unittest import mock

import pytest

import study.running.cluster  # noqa: F401 - sets Ray's environment before Ray is imported

# isort: split
from study.cli.progress import StudyProgress
from study.running import runner
from tests.study.factories import make_plan
from trainables.spec.measures import ACCURACY
from trainables.tune import tasks
from trainables.tune import trainable as distillation


def trials_by_process(folder: Path) -> Counter[str]:
    return Counter(path.name.split("-")[0] for path in folder.iterdir() if path.name != "first")


class ShortTrial(distillation.DistillationTrainable):
    """Trial that is shorter than the start of a process. All processes but the first start slowly.

    On a busy machine, a start can take as long as any number of trials, so the first process runs some trials and then
    waits.
    """

    folder: Path

    def setup(self, config: dict[str, Any]) -> None:
        try:
            (self.folder / "first").touch(exist_ok=False)
        except FileExistsError:
            time.sleep(3)
        super().setup(config)

    def _start(self, settings: dict[str, Any]) -> None:
        (self.folder / f"{os.getpid()}-{settings['trial_id']}").touch()

    def step(self) -> dict[str, Any]:
        self._begin_if_new()
        time.sleep(0.3)
        until = (self.folder / "first").stat().st_mtime + 300
        while (begun := trials_by_process(self.folder)).total() >= 5 and len(begun) == 1 and time.time() < until:
            time.sleep(0.1)
        epochs = [{"epoch": 1, ACCURACY: 0.5}]
        return {ACCURACY: 0.5, "epoch": 1, "epochs": epochs, "finished": True, "done": True}


@pytest.mark.slow
@pytest.mark.parametrize("scheduler", ["none", "asha"])
def test_a_process_that_starts_late_still_comes_to_work(tmp_path, scheduler):
    folder = tmp_path / "who"
    folder.mkdir()
    trainable = type("ShortTrialHere", (ShortTrial,), {"folder": folder})
    plan = make_plan(
        tmp_path, trials=40, promising=1, replicates=1, controls=(), sampler="random", scheduler=scheduler,
        base={"epochs": 1}, max_concurrent=2, cpus_per_trial=0.5, teacher_outputs="live",
        executor="ray",
    )  # fmt: skip
    with (
        mock.patch.object(distillation, "DistillationTrainable", trainable),
        mock.patch.object(runner, "prepare_study_teacher", return_value=tasks.PreparedTeacher("none", [])),
    ):
        run, tracker = runner.run_study(plan, progress=StudyProgress(plan, quiet=True), command="", versions={})
    assert tracker.finish("FINISHED") is None
    assert run.ledger.count("finished") == plan.total_trials
    trials_of = trials_by_process(folder)
    assert len(trials_of) == 2, f"{len(trials_of)} processes: each start beyond the second is a second lost"
    assert min(trials_of.values()) >= 10
