"""Overhead of a study per trial in ms, and overhead growth with the number of trials.

The trials do no work, but use a real local Ray with a real study's searcher, journal, records and MLflow. The time
between the ends of the first and the last trial is therefore spent in the driver and in Ray. The result is wall time
per trial, with `--concurrent` trials at once as in a real study.

    python benchmarks/overhead.py [--quick] [--trials 200] [--epochs 5] [--runs 5] [--json PATH]
"""

import argparse
import itertools
import json
import math
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest import mock

sys.path[0] = str(Path(__file__).parents[1])  # this script's folder has a study.py, which would hide the package

# isort: split
import study.running.cluster  # noqa: F401 - sets Ray's environment before Ray is imported

# isort: split
from study.cli.progress import StudyProgress
from study.plan.resolve import resolve_plan
from study.records import read_trials
from study.running import runner
from trainables.spec.measures import ACCURACY, CALIBRATION, COST_MEASURES, TRAINING_MEASURES, VALIDATION_MEASURES
from trainables.spec.trial import TrialConfig
from trainables.tune import session, tasks
from trainables.tune import trainable as distillation


class IdleRun:
    """Substitute for a run: waits for each epoch as if a device computed it, and reports every measure."""

    def __init__(self, config: TrialConfig, seconds_per_epoch: float) -> None:
        self.config = config
        self.epoch = 0
        self.dataset = SimpleNamespace(digest="0" * 64, train=range(1077), validation=range(360), source_counts={})
        bins = dict.fromkeys(("count", "confidence", "correct"), [1.0] * 15)
        self.calibration = dict.fromkeys(CALIBRATION[:3], bins)
        self.answers: dict[str, Any] = {}
        self._seconds = seconds_per_epoch

    @property
    def finished(self) -> bool:
        """Whether the last epoch has ended."""
        return self.epoch >= self.config.epochs

    def data_facts(self) -> dict[str, float]:
        """Return no facts."""
        return {}

    def wait(self) -> dict[str, float]:
        """Wait for one epoch and return the measures."""
        time.sleep(self._seconds)
        self.epoch += 1
        names = VALIDATION_MEASURES + TRAINING_MEASURES + COST_MEASURES
        return {**dict.fromkeys(names, 0.001), ACCURACY: 1 / self.config.adapter_width}


class IdleTrainable(distillation.DistillationTrainable):
    """Trainable that reports like a trial but computes nothing."""

    seconds_per_epoch = 0.0

    def _begin_if_new(self) -> None:
        super()._begin_if_new()
        self._session.reporting.saved_at = math.inf  # a checkpoint is never due

    def _run_epoch(self, run: Any) -> dict[str, float]:
        return run.wait()

    def _start(self, settings: dict[str, Any]) -> Any:
        session.count_costs = lambda _: SimpleNamespace(facts={})  # replaced in this worker process only
        return IdleRun(TrialConfig(**settings["config"]), self.seconds_per_epoch)


def measure(trials: int, epochs: int, concurrent: int) -> list[float]:
    """Return the seconds between consecutive trial ends, in order."""
    folder = Path(tempfile.mkdtemp(prefix="overhead-"))
    plan = resolve_plan(
        {
            "name": "overhead", "space": "adapter_width", "trials": trials, "promising": 1, "replicates": 1,
            "controls": (), "sampler": "random", "base": {"epochs": epochs}, "output_dir": folder,
            "max_concurrent": concurrent, "tracking_uri": f"sqlite:///{folder}/mlflow.db",
            "teacher_outputs": "live",
        }
    )  # fmt: skip
    plan.directory.mkdir(parents=True)
    with (
        mock.patch.object(distillation, "DistillationTrainable", IdleTrainable),
        mock.patch.object(runner, "prepare_study_teacher", return_value=tasks.PreparedTeacher("none", [])),
    ):
        run, tracker = runner.run_study(plan, progress=StudyProgress(plan, quiet=True), command="", versions={})
    error = tracker.finish("FINISHED")
    assert error is None, error
    assert read_trials(plan.directory).num_rows == trials + 1
    assert {entry.status for entry in run.ledger.entries.values()} == {"finished"}
    ends = sorted(entry.ended for entry in run.ledger.entries.values())
    shutil.rmtree(folder)
    return [later - earlier for earlier, later in itertools.pairwise(ends)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="40 trials, once")
    parser.add_argument("--trials", type=int, default=200)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--concurrent", type=int, default=2)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    trials, runs = (40, 1) if arguments.quick else (arguments.trials, arguments.runs)
    rows = []
    for number in range(runs):
        load = os.getloadavg()[0]
        gaps = [1000 * gap for gap in measure(trials, arguments.epochs, arguments.concurrent)]
        quarter = len(gaps) // 4
        means = [statistics.fmean(gaps[start : start + quarter]) for start in range(0, 4 * quarter, quarter)]
        row = {
            "run": number, "trials": trials, "ms_per_trial": statistics.fmean(gaps),
            **{f"ms_quarter_{place}": mean for place, mean in enumerate(means, start=1)},
            "last_over_first": means[-1] / means[0], "load_before": load,
        }  # fmt: skip
        print("  ".join(f"{k} {v:.2f}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()), flush=True)
        rows.append(row)
    for name in ("ms_per_trial", "last_over_first"):
        values = [row[name] for row in rows]
        print(f"median {name} {statistics.median(values):.2f} (n = {runs}, {min(values):.2f} to {max(values):.2f})")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
