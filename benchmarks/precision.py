"""Effect of rounding on a student: bf16 against fp32, and stored teacher outputs against a live teacher.

Every arm trains the same PESF-KD trials on Fashion-MNIST, with the same initial weights, batches and views, on n seeds.
The differences are therefore paired by seed. The output shows the mean differences in the last epoch's validation
measures, with Student t intervals (0.95).

    python benchmarks/precision.py --data-root FOLDER [--quick] [--seeds N] [--first-seed N] [--epochs N] [--json PATH]

`--quick` uses the digits, which need no files, for two seeds with two epochs each.
"""

import argparse
import json
import math
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from typing import NamedTuple

# This script's folder comes first in sys.path and has a study.py, which would hide the package.
sys.path[0] = str(Path(__file__).resolve().parent.parent)

from scipy import stats

from trainables.costs.epoch import run_epoch
from trainables.data import load_dataset
from trainables.process.threads import use_one_thread
from trainables.run.run import DistillationRun
from trainables.spec.trial import TrialConfig
from trainables.teacher.files import ensure_teacher, load_teacher
from trainables.teacher_outputs.store import StoredTeacherOutputs, TeacherOutputsStore

MEASURES = ("val/accuracy", "val/loss", "val/sharpness_gap")
CORES = len(os.sched_getaffinity(0))


class Arm(NamedTuple):
    """Precision and teacher outputs in an arm."""

    precision: str
    outputs: str  # live, or the stored outputs' dtype


ARMS = {
    "fp32, outputs stored as float16": Arm("fp32", "float16"),
    "bf16, outputs stored as float16": Arm("bf16", "float16"),
    "fp32, outputs stored as bfloat16": Arm("fp32", "bfloat16"),
    "fp32, outputs stored as float32": Arm("fp32", "float32"),
    "fp32, live teacher": Arm("fp32", "live"),
}
COMPARISONS = (
    ("bf16, outputs stored as float16", "fp32, outputs stored as float16"),
    ("bf16, outputs stored as float16", "fp32, live teacher"),
    ("fp32, outputs stored as float16", "fp32, live teacher"),
    ("fp32, outputs stored as bfloat16", "fp32, live teacher"),
    ("fp32, outputs stored as float32", "fp32, live teacher"),
)


def run_trial(config: TrialConfig, outputs: str, data_root: Path | None, folder: Path) -> dict[str, float]:
    """Train a trial and return the last epoch's validation measures."""
    use_one_thread()
    dataset = load_dataset(config.dataset, data_root, seed=config.split_seed)
    teacher = load_teacher(ensure_teacher(config, dataset, folder / "teachers"), config, dataset)
    stored = None
    if outputs != "live":
        store = TeacherOutputsStore(
            folder / "outputs", teacher, dataset,
            architecture=config.teacher, augmentation=config.augmentation, dtype=outputs, device="cpu",
        )  # fmt: skip
        stored = StoredTeacherOutputs(store)
    run = DistillationRun(config, dataset, teacher, teacher_outputs=stored)
    measures: dict[str, float] = {}
    while not run.finished:
        measures = run_epoch(run)
    return {name: measures[name] for name in MEASURES}


def paired_rows(found: dict[tuple[str, int], dict[str, float]], seeds: range, about: dict[str, object]) -> list[dict]:
    """Return one row per comparison and measure."""
    rows = []
    for arm, against in COMPARISONS:
        for measure in MEASURES:
            pairs = [(found[arm, seed][measure], found[against, seed][measure]) for seed in seeds]
            differences = [a - b for a, b in pairs]
            error = statistics.stdev(differences) / math.sqrt(len(seeds))
            half = float(stats.t.ppf(0.975, len(seeds) - 1)) * error
            mean = statistics.mean(differences)
            rows.append(
                {
                    "arm": arm, "against": against, "measure": measure, "difference": mean,
                    "low": mean - half, "high": mean + half, "mean_against": statistics.mean(b for _, b in pairs),
                    "sd_over_seeds": statistics.stdev(b for _, b in pairs), "n": len(seeds), **about,
                }
            )  # fmt: skip
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="on the digits, two seeds of two epochs")
    parser.add_argument("--seeds", type=int, default=6)
    parser.add_argument("--first-seed", type=int, default=0, help="to add seeds to those of an earlier run")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--student", default="cnn_16_32")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("PESFKD_DATA_ROOT"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    if not arguments.quick and arguments.data_root is None:
        parser.error("--data-root: give the folder that holds FashionMNIST/raw, or --quick")
    if arguments.seeds < 2:
        parser.error("--seeds: at least 2, as an interval needs them")
    count = 2 if arguments.quick else arguments.seeds
    seeds = range(arguments.first_seed, arguments.first_seed + count)
    base = TrialConfig(
        dataset="digits" if arguments.quick else "fashion_mnist",
        student="cnn_3_4" if arguments.quick else arguments.student,
        epochs=2 if arguments.quick else arguments.epochs,
        teacher_epochs=2 if arguments.quick else 5,
    )
    context = multiprocessing.get_context("spawn")
    found: dict[tuple[str, int], dict[str, float]] = {}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="precision-") as name, ProcessPoolExecutor(CORES, context) as pool:
        folder = Path(name)
        waiting = {
            (arm, seed): pool.submit(
                run_trial,
                base.model_copy(update={"precision": how.precision, "seed": seed, "data_seed": seed}),
                how.outputs,
                arguments.data_root,
                folder,
            )
            for seed in seeds
            for arm, how in ARMS.items()
        }
        for (arm, seed), future in waiting.items():
            found[arm, seed] = future.result()
            print(f"  {time.monotonic() - began:6.0f} s  seed {seed}  {arm:34} {found[arm, seed]}", flush=True)
    about = {"dataset": base.dataset, "student": base.student, "teacher": base.teacher, "epochs": base.epochs}
    rows = paired_rows(found, seeds, about)
    for row in rows:
        print(
            f"{row['arm']:34} - {row['against']:34} {row['measure']:18} {row['difference']:+.5f} "
            f"[{row['low']:+.5f}, {row['high']:+.5f}]  of {row['mean_against']:.4f} (sd {row['sd_over_seeds']:.4f}), "
            f"n {row['n']}"
        )
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
