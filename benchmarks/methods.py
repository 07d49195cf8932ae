"""Cost of a training step for every method, relative to a cross-entropy step on the same student.

    python benchmarks/methods.py [--quick] [--pairs small|cifar|all] [--rounds N] [--json PATH]

Every method runs at the published settings, with the product's own runs, on random images, in the precision selected by
`auto` on this machine. Methods with support for stored teacher outputs read them from a memory-mapped float16 file.
Filling the file is not timed, and neither is a teacher trained before the student (`sftn`). `pesf_kd, live teacher` is
PESF-KD without stored outputs. Peers have the teacher's architecture in methods with a large and a small network
(`dml`, `kdcl`). Use `over_ce` to compare methods. `pesf_kd_is` is the PESF-KD step time with stored outputs, divided by
the method's step time.

All methods take turns in one process on one thread, in a new random order each round. A ratio is the median over rounds
of the ratio within a round, in process time. CRD's memory bank holds 1,280 samples here. A larger bank causes more
cache misses.
"""

import argparse
import copy
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

from benchmarks.step import (
    BATCH,
    CIFAR,
    QUICK,
    SMALL,
    WARM_UP,
    Pair,
    endless_batches,
    median_ratio,
    random_dataset,
    timed,
)
from trainables.data.dataset import Dataset
from trainables.methods.registry import METHODS
from trainables.models import build_model
from trainables.process.environment import restart_as_worker
from trainables.process.threads import use_one_thread
from trainables.run.run import DistillationRun
from trainables.spec.methods import method_spec
from trainables.spec.precision import resolve_precision
from trainables.spec.trial import TrialConfig
from trainables.steps.loss_log import LossLog
from trainables.teacher_outputs.frozen import FrozenTeacher
from trainables.teacher_outputs.store import StoredTeacherOutputs, TeacherOutputsStore

LIVE = "pesf_kd, live teacher"
OF_IMAGES = [name for name in METHODS if method_spec(name).modality != "text"]
PAIRS = {"small": SMALL[:1], "cifar": CIFAR[1:2], "all": (*SMALL[:1], *CIFAR[1:2])}


def build_step(pair: Pair, arm: str, dataset: Dataset, teacher: FrozenTeacher, folder: Path) -> Callable[[], object]:
    """Return a function that runs one training step on the next mini-batch with the given method."""
    method = arm.split(",")[0]
    entry = method_spec(method)
    teacher, stored = copy.deepcopy(teacher), None  # some methods train the teacher
    if entry.needs_teacher and not entry.needs_live_teacher and arm != LIVE:
        store = TeacherOutputsStore(folder, teacher, dataset, architecture=pair.teacher, augmentation="views")
        stored = StoredTeacherOutputs(store)
    precision = resolve_precision("auto", student=pair.student, image_size=pair.image_size)
    config = TrialConfig(
        method=method, dataset=dataset.name, student=pair.student, teacher=pair.teacher, precision=precision,
        student_learning_rate=0.001, epochs=1, **entry.published,
    )  # fmt: skip
    run = DistillationRun(config, dataset, teacher if entry.needs_teacher else None, teacher_outputs=stored)
    log = LossLog(run.method.gradients(config.model_dump()))
    run.begin_drawing()
    for trainer in run.trainers.values():
        trainer.module.train()
        trainer.begin_epoch(0)
    batches = endless_batches(run, stored)
    return lambda: run.train_batch(next(batches), log)


def measure(pair: Pair, rounds: int, folder: Path) -> list[dict]:
    """Return one row per method, the most expensive last."""
    dataset = random_dataset(pair.image_size, pair.num_classes, 20 * BATCH)
    teacher = FrozenTeacher(build_model(pair.teacher, num_classes=pair.num_classes, in_channels=pair.channels))
    steps = {arm: build_step(pair, arm, dataset, teacher, folder / pair.name) for arm in (*OF_IMAGES, LIVE)}
    seconds: dict[str, list[float]] = {arm: [] for arm in steps}
    load, order = os.getloadavg()[0], random.Random(0)
    for number in range(WARM_UP + rounds):
        for arm in order.sample(list(steps), len(steps)):
            taken = timed(steps[arm], pair.repeats)
            if number >= WARM_UP:
                seconds[arm].append(taken)
    rows = [
        {
            "pair": pair.name,
            "method": arm,
            "over_ce": median_ratio(seconds[arm], seconds["ce"]),
            "pesf_kd_is": median_ratio(seconds["pesf_kd"], seconds[arm]),
            "n": rounds,
            "load": load,
        }
        for arm in steps
    ]
    return sorted(rows, key=lambda row: row["over_ce"])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one tiny pair, a few rounds")
    parser.add_argument("--pairs", choices=PAIRS, default="small")
    parser.add_argument("--rounds", type=int, help="in place of each pair's own number")
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    restart_as_worker()
    use_one_thread()
    rows: list[dict] = []
    with tempfile.TemporaryDirectory(prefix="methods-") as folder:
        for pair in QUICK if arguments.quick else PAIRS[arguments.pairs]:
            measured = measure(pair, arguments.rounds or pair.rounds, Path(folder))
            print(f"{pair.name}, n = {measured[0]['n']}, load before {measured[0]['load']:.1f}")
            print(f"  {'method':24} {'over ce':>8} {'PESF-KD is':>11}")
            for row in measured:
                print(f"  {row['method']:24} {row['over_ce']:8.2f} {row['pesf_kd_is']:10.2f}x", flush=True)
            rows += measured
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
