"""What a study costs beside its trials' own computing: ms per trial, and how it grows with the number of trials.

Trials that do no work, on a real local Ray with the searcher, journal, records and MLflow of a real study: what is
left between the first and the last trial's end is the driver's and Ray's. The figure is wall time per trial, with
`--concurrent` of them at once as in a real study.

    python benchmarks/overhead.py [--quick] [--trials 200] [--epochs 5] [--runs 5] [--json PATH]
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
from pathlib import Path
from unittest import mock

sys.path[0] = str(Path(__file__).parents[1])  # beside this file lies a study.py, which is not the package

# isort: split
from study import runner
from study.plan import resolve_plan
from study.progress import StudyProgress
from study.records import read_trials
from trainables import distillation
from trainables.measures import ACCURACY, COST_MEASURES, TRAINING_MEASURES, VALIDATION_MEASURES
from trainables.trial import TrialConfig


class NoWorkTrainable(distillation.DistillationTrainable):
    """Reports every measure of an epoch without having computed anything."""

    def _begin(self, config: dict) -> None:
        self._config = TrialConfig(**config["config"])
        self._epoch = 0

    def step(self) -> dict:
        """One epoch of nothing."""
        self._epoch += 1
        names = VALIDATION_MEASURES + TRAINING_MEASURES + COST_MEASURES
        finished = self._epoch >= self._config.epochs
        accuracy = {ACCURACY: 1 / self._config.adapter_width}
        return {
            **dict.fromkeys(names, 0.001), **accuracy, "epoch": self._epoch, "finished": finished, "done": finished,
        }  # fmt: skip


def measure(trials: int, epochs: int, concurrent: int) -> list[float]:
    """Seconds between consecutive ends of trials, in order."""
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
        mock.patch.object(distillation, "DistillationTrainable", NoWorkTrainable),
        mock.patch.object(runner, "prepare_study_teacher", return_value=distillation.PreparedTeacher("none", [])),
    ):
        run, tracker = runner.run_study(plan, progress=StudyProgress(plan, quiet=True), command="", versions={})
    error = tracker.finish("FINISHED")
    assert error is None, error
    assert read_trials(plan.directory).num_rows == trials + 1
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
        first, last = statistics.fmean(gaps[:quarter]), statistics.fmean(gaps[-quarter:])
        row = {
            "run": number, "trials": trials, "ms_per_trial": statistics.fmean(gaps), "ms_first_quarter": first,
            "ms_last_quarter": last, "last_over_first": last / first, "load_before": load,
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
