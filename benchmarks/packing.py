"""Steps per second of K packed trials, relative to the same trials one after the other, on one thread.

The benchmark runs whole PESF-KD training epochs with stored teacher outputs on random images, with the product's own
runs. K trials with different adapter widths, temperatures and learning rates form one `Pack`. The baseline is K
`DistillationRun`s with the same configs, one after the other. The two arms alternate in one process. A ratio is the
median over rounds of the ratio within a round, without the first rounds. Time is process time, in the environment of
study workers.

`batches` is `shared` if all trials see the same mini-batches, as for the configs of one replicate in a study. With
`own`, each trial has another order. `fp32` and `bf16` are the product's precisions. The last lines show the K with the
highest step rate, or 1 if no K gains a tenth. This is approximately the result of `--pack auto`, which measures the
rates itself.

    python benchmarks/packing.py [--quick] [--cases small|cifar|all] [--rounds N] [--json PATH]
"""

import argparse
import json
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

sys.path[0] = str(Path(__file__).parents[1])  # this script's folder has a study.py, which would hide the package

from benchmarks.step import random_dataset
from trainables.models import build_model
from trainables.packing.pack import Pack
from trainables.packing.probe import COUNTS, LEAST_GAIN
from trainables.process.environment import restart_as_worker
from trainables.process.threads import use_one_thread
from trainables.run.run import DistillationRun
from trainables.spec.precision import Precision, resolve_precision
from trainables.spec.trial import TrialConfig
from trainables.teacher_outputs.frozen import FrozenTeacher
from trainables.teacher_outputs.store import StoredTeacherOutputs, TeacherOutputsStore

WARM_UP = 2


class Case(NamedTuple):
    """Student, image size and batch size."""

    student: str
    image_size: int
    num_classes: int
    batch: int
    steps: int  # per epoch
    rounds: int

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.student}@{self.image_size}"


SMALL = (
    Case("cnn_3_4", 8, 10, 64, 16, 15),
    Case("cnn_3_4", 8, 10, 256, 8, 15),
    Case("cnn_8_16", 8, 10, 64, 16, 15),
    Case("cnn_8_16", 28, 10, 64, 8, 11),
    Case("cnn_16_32", 28, 10, 64, 8, 11),
)
CIFAR = (
    Case("resnet8", 32, 100, 64, 2, 7),
    Case("wrn_16_1", 32, 100, 64, 2, 5),
    Case("resnet8x4", 32, 100, 64, 2, 5),
)
QUICK = (Case("cnn_3_4", 8, 10, 32, 2, 3),)


def configs(case: Case, dataset: str, count: int, precision: Precision, *, shared: bool) -> list[TrialConfig]:
    """Return `count` trial configs that differ as in a study."""
    return [
        TrialConfig(
            dataset=dataset, student=case.student, teacher="cnn_32_64", precision=precision, batch_size=case.batch,
            epochs=10_000, augmentation="none", adapter_width=2 ** (2 + k % 4), temperature=1.0 + k, seed=k,
            student_learning_rate=0.001 * (k + 1), data_seed=0 if shared else k,
        )
        for k in range(count)
    ]  # fmt: skip


def measure(case: Case, precision: Precision, count: int, rounds: int, folder: Path, *, shared: bool) -> dict:
    """Return one row: packed trials against trials one after the other, timed in turn."""
    dataset = random_dataset(case.image_size, case.num_classes, case.batch * case.steps)
    teacher = FrozenTeacher(build_model("cnn_32_64", num_classes=case.num_classes, in_channels=dataset.info.channels))
    store = TeacherOutputsStore(folder / f"{case}", teacher, dataset, architecture="cnn_32_64", augmentation="none")
    trials = configs(case, dataset.name, count, precision, shared=shared)
    pack = Pack.of_configs(trials, dataset, teacher, teacher_outputs=[StoredTeacherOutputs(store) for _ in trials])
    alone = [DistillationRun(each, dataset, teacher, teacher_outputs=StoredTeacherOutputs(store)) for each in trials]
    load = os.getloadavg()[0]
    seconds: dict[str, list[float]] = {"packed": [], "alone": []}
    for number in range(WARM_UP + rounds):
        for arm in ("packed", "alone") if number % 2 else ("alone", "packed"):
            started = time.process_time()
            if arm == "packed":
                pack.train_epoch()
            else:
                for run in alone:
                    run.train_epoch()
            if number >= WARM_UP:
                seconds[arm].append(time.process_time() - started)
    assert len(pack.members) == count
    steps = count * case.steps
    return {
        "case": case.name,
        "batch": case.batch,
        "precision": precision,
        "batches": "shared" if shared else "own",
        "packed": count,
        "ratio": statistics.median(b / a for a, b in zip(seconds["packed"], seconds["alone"], strict=True)),
        "packed_steps_per_second": steps / statistics.median(seconds["packed"]),
        "alone_steps_per_second": steps / statistics.median(seconds["alone"]),
        "n": rounds,
        "load": load,
    }


def best_counts(rows: list[dict]) -> dict[str, int]:
    """Return the K with the highest ratio for each case, precision and batch kind.

    K is 1 if no ratio exceeds `LEAST_GAIN`.
    """
    best: dict[str, tuple[float, int]] = {}
    for row in rows:
        key = f"{row['case']} batch {row['batch']} {row['precision']} {row['batches']}"
        best[key] = max(best.get(key, (LEAST_GAIN, 1)), (row["ratio"], row["packed"]))
    return {key: count for key, (_, count) in best.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one tiny case, a few rounds")
    parser.add_argument("--cases", choices=("small", "cifar", "all"), default="all")
    parser.add_argument("--rounds", type=int, help="in place of each case's own number")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    restart_as_worker()
    use_one_thread()
    cases = QUICK if arguments.quick else {"small": SMALL, "cifar": CIFAR, "all": SMALL + CIFAR}[arguments.cases]
    rows: list[dict] = []
    print(
        f"{'case':14} {'batch':>5} {'precision':9} {'batches':7} {'K':>2} {'ratio':>6} {'packed/s':>9} "
        f"{'alone/s':>9} {'n':>3} {'load':>5}"
    )
    with tempfile.TemporaryDirectory(prefix="packing-") as folder:
        for case in cases:
            auto = resolve_precision("auto", student=case.student, image_size=case.image_size)
            for precision in dict.fromkeys(("fp32", auto)):
                for count in COUNTS:
                    for shared in (True, False):
                        row = measure(
                            case, precision, count, arguments.rounds or case.rounds, Path(folder), shared=shared
                        )  # fmt: skip
                        rows.append(row)
                        print(
                            f"{row['case']:14} {row['batch']:5} {row['precision']:9} {row['batches']:7} "
                            f"{row['packed']:2} {row['ratio']:6.2f} {row['packed_steps_per_second']:9.1f} "
                            f"{row['alone_steps_per_second']:9.1f} {row['n']:3} {row['load']:5.1f}",
                            flush=True,
                        )
    for key, count in best_counts(rows).items():
        print(f"auto: {key}: {count}")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
