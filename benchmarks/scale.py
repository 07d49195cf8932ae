"""Driver cost of a study with thousands of trials on dozens of slots: time, memory, and Tune's snapshot.

The trials do no work, but use a real local Ray with Tune, and a real study's searcher, journal, records and MLflow
(SQLite). Trial processes do not import torch, so 64 of them fit on a small machine. Nothing else takes time, so the
wall time between two ends is the driver's time per trial. `cpu` is the processor time over all driver threads,
including the loop shared by all trials.

The output has one row per quarter of the trials: the median milliseconds per trial over chunks of 20 trials, the
driver's processor time per trial, the driver's resident memory, and megabytes per thousand trials since the previous
quarter. Then follow Tune's snapshot (bytes, bytes per trial, and seconds to write, only at the start and end of the
study) and the sizes of the journal, the records and MLflow's database.

    python benchmarks/scale.py [--quick] [--trials 5000] [--slots 64] [--epochs 5] [--sampler random] [--json PATH]
"""

import argparse
import io
import itertools
import json
import os
import shutil
import statistics
import sys
import tempfile
import threading
import time
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

sys.path[0] = str(Path(__file__).parents[1])  # this script's folder has a study.py, which would hide the package

# isort: split
import study.running.cluster  # noqa: F401 - sets Ray's environment before Ray is imported

# isort: split
import psutil
from ray import tune
from ray.tune.execution.tune_controller import TuneController

from study.cli.progress import StudyProgress
from study.ledger.ledger import StudyLedger
from study.plan.plan import StudyPlan
from study.plan.resolve import resolve_plan
from study.records import read_epochs, read_trials
from study.running import runner
from trainables.spec.measures import CALIBRATION, COST_MEASURES, TRAINING_MEASURES, VALIDATION_MEASURES
from trainables.tune import tasks
from trainables.tune import trainable as distillation

CHUNK = 20


class NoWork(tune.Trainable):
    """Trainable that reports a complete trial at once, without torch and without computing anything."""

    names = VALIDATION_MEASURES + TRAINING_MEASURES + COST_MEASURES
    bins = CALIBRATION[:3]

    def setup(self, config: dict[str, Any]) -> None:  # noqa: D102 (Tune's)
        self.reset_config(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:  # noqa: D102
        self._trial = new_config["config"]
        return True

    def step(self) -> dict[str, Any]:  # noqa: D102
        measures = {**dict.fromkeys(self.names, 0.001), "val/accuracy": 1 / self._trial["adapter_width"]}
        epochs = [{"epoch": number, **measures} for number in range(1, self._trial["epochs"] + 1)]
        bins = dict.fromkeys(("count", "confidence", "correct"), [1.0] * 15)
        return {
            "val/accuracy": measures["val/accuracy"], "epoch": len(epochs), "epochs": epochs, "facts": {},
            "dataset": {"digest": "0" * 64, "train": 1077, "validation": 360},
            "calibration": dict.fromkeys(self.bins, bins), "finished": True, "done": True,
        }  # fmt: skip


class Sample(NamedTuple):
    """Driver state at one moment: trials ended, processor time in seconds, and resident memory in bytes."""

    ended: int
    cpu: float
    memory: int


class Watch(threading.Thread):
    """Thread that samples the driver's processor time and memory while trials end."""

    def __init__(self, ledgers: list[StudyLedger]) -> None:
        super().__init__(daemon=True)
        self.samples: list[Sample] = []
        self.over = threading.Event()
        self._ledgers = ledgers
        self._driver = psutil.Process()

    def run(self) -> None:  # noqa: D102
        while not self.over.wait(0.25):
            ended = self._ledgers[0].ended if self._ledgers else 0
            self.samples.append(Sample(ended, time.process_time(), self._driver.memory_info().rss))

    def at(self, ended: int) -> Sample:
        """Return the first sample with at least `ended` trials ended."""
        return next((each for each in self.samples if each.ended >= ended), self.samples[-1])


class Measured(NamedTuple):
    """Measurements of a finished study.

    Args:
        ends: trial end times, in order.
        watch: driver samples.
        sizes: bytes in the study's files, by name.
        snapshots: seconds to write each Tune snapshot.
    """

    ends: list[float]
    watch: Watch
    sizes: dict[str, int]
    snapshots: list[float]


def measure(trials: int, slots: int, epochs: int, sampler: str) -> Measured:
    """Run a study with `trials` trials and return the measurements."""
    folder = Path(tempfile.mkdtemp(prefix="scale-"))
    cores = len(os.sched_getaffinity(0))
    plan = resolve_plan(
        {
            "name": "scale", "space": "adapter_width", "trials": trials - 1, "promising": 1, "replicates": 1,
            "controls": (), "sampler": sampler, "base": {"epochs": epochs}, "output_dir": folder,
            "max_concurrent": slots, "cpus_per_trial": min(1.0, cores / slots), "teacher_outputs": "live",
            "tracking_uri": f"sqlite:///{folder}/mlflow.db",
        }
    )  # fmt: skip
    plan.directory.mkdir(parents=True)
    try:
        return _run(plan, trials, epochs)
    finally:
        shutil.rmtree(folder)


def _run(plan: StudyPlan, trials: int, epochs: int) -> Measured:
    ledgers: list[StudyLedger] = []
    snapshots: list[float] = []
    opened, saved = StudyLedger.__init__, TuneController.save_to_dir

    def remember(self: StudyLedger, *args: Any, **options: Any) -> None:
        opened(self, *args, **options)
        ledgers.append(self)

    def timed(self: TuneController) -> None:
        began = time.perf_counter()
        saved(self)
        snapshots.append(time.perf_counter() - began)

    watch = Watch(ledgers)
    watch.start()
    with (
        mock.patch.object(distillation, "DistillationTrainable", NoWork),
        mock.patch.object(runner, "prepare_study_teacher", return_value=tasks.PreparedTeacher("none", [])),
        mock.patch.object(StudyLedger, "__init__", remember),
        mock.patch.object(TuneController, "save_to_dir", timed),
        redirect_stdout(io.StringIO()),  # Tune prints a table regardless of settings
    ):
        run, tracker = runner.run_study(plan, progress=StudyProgress(plan, quiet=True), command="", versions={})
    watch.over.set()
    watch.join()
    error = tracker.finish("FINISHED")
    assert error is None, error
    entries = run.ledger.entries.values()
    assert [entry.status for entry in entries] == ["finished"] * trials, "a trial that failed costs something else"
    assert read_trials(plan.directory).num_rows == trials
    assert read_epochs(plan.directory).num_rows == trials * epochs
    return Measured(sorted(entry.ended for entry in entries if entry.ended), watch, _sizes(plan), snapshots)


def _sizes(plan: StudyPlan) -> dict[str, int]:
    def total(pattern: str) -> int:
        return sum(path.stat().st_size for path in plan.directory.glob(pattern) if path.is_file())

    return {
        "snapshot": total("tune/run-1/experiment_state*") + total("tune/run-1/*.pkl") + total("tune/run-1/search*"),
        "journal": total("journal.jsonl"),
        "records": total("records/*/*"),
        "mlflow": sum(path.stat().st_size for path in plan.output_dir.glob("mlflow.db*")),
    }


def rows_of(measured: Measured, trials: int) -> list[dict[str, Any]]:
    """Return one row per quarter of the trials."""
    rows = []
    quarter = trials // 4
    for number in range(4):
        first, last = number * quarter, (number + 1) * quarter - 1
        ends = measured.ends[first : last + 1]
        chunks = itertools.pairwise(ends[:: min(CHUNK, max(1, len(ends) // 2))])
        each = [1000 * (later - earlier) / min(CHUNK, max(1, len(ends) // 2)) for earlier, later in chunks]
        begun, done = measured.watch.at(first), measured.watch.at(last)
        rows.append({
            "quarter": number + 1,
            "trials": last + 1,
            "ms_per_trial": statistics.median(each),
            "cpu_ms_per_trial": 1000 * (done.cpu - begun.cpu) / quarter,
            "memory_mb": done.memory / 1e6,
            "mb_per_1000_trials": (done.memory - begun.memory) / 1e3 / quarter,
        })  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="40 trials on 2 slots")
    parser.add_argument("--trials", type=int, default=5000)
    parser.add_argument("--slots", type=int, default=64)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--sampler", default="random")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    trials, slots = (40, 2) if arguments.quick else (arguments.trials, arguments.slots)
    load = os.getloadavg()[0]
    measured = measure(trials, slots, arguments.epochs, arguments.sampler)
    rows = rows_of(measured, trials)
    print(
        f"{trials} trials of {arguments.epochs} epochs on {slots} slots, sampler {arguments.sampler}; load {load:.1f}"
    )
    print(f"{'quarter':>7} {'trials':>6} {'ms/trial':>9} {'cpu ms':>7} {'memory MB':>10} {'MB/1000 trials':>15}")
    for row in rows:
        print(
            f"{row['quarter']:7} {row['trials']:6} {row['ms_per_trial']:9.1f} {row['cpu_ms_per_trial']:7.1f} "
            f"{row['memory_mb']:10.0f} {row['mb_per_1000_trials']:15.1f}"
        )
    print(f"last quarter over first: {rows[-1]['ms_per_trial'] / rows[0]['ms_per_trial']:.2f} (time per trial)")
    seconds = ", ".join(f"{each:.2f}" for each in measured.snapshots)
    print(f"Tune's snapshots: {len(measured.snapshots)}, of {seconds} s")
    for name, size in measured.sizes.items():
        print(f"{name:9} {size / 1e6:8.2f} MB, {size / trials / 1e3:6.2f} kB a trial")
    if arguments.json:
        content = {
            "trials": trials, "slots": slots, "sampler": arguments.sampler, "load_before": load, "quarters": rows,
            "snapshot_seconds": measured.snapshots, "bytes": measured.sizes,
        }  # fmt: skip
        arguments.json.write_text(json.dumps(content, indent=2) + "\n")


if __name__ == "__main__":
    main()
