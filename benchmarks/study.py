"""Savings by stored teacher outputs, long-lived workers and packing in a whole study, and memory for another trial.

- `pair`: study with resnet32x4 -> resnet8x4 on CIFAR-shaped images, by `study.launch`. Compares stored teacher outputs,
  filling included, in the default precision and in float32, with a live teacher in float32. The result is the whole
  command's wall time.
- `digits`: study over adapter widths on the digits, compared with one process per trial. Each process has a live
  teacher and one thread. As many processes run at once as there are cores, as in a shell loop over a training script.
  The result is wall time per trial, including all starts. The teacher exists in both cases. `under way` is the study's
  time per trial between the ends of the first and the last trial: the cost of another trial.
- `memory`: memory (PSS) added by another trial process that gathers from a one-gigabyte file, minus the memory added
  by another process with only the imported libraries.

The arms in a part take turns. A ratio is the median over runs of the ratio within a run.

    python benchmarks/study.py [--quick] [--part pair|digits|memory|all] [--runs N] [--json PATH]
"""

import argparse
import itertools
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path[0] = str(Path(__file__).parents[1])  # this script is also called study.py and would hide the package

from study.records import read_epochs
from trainables.process.environment import WORKERS

CORES = len(os.sched_getaffinity(0))
PAIR = ("resnet32x4", "resnet8x4")
MEMORY_TEACHER = "cnn_32_64"
TEACHER_FLAGS = ("--teacher-recipe", "short", "--teacher-epochs", 1)  # teacher quality does not affect the time
# On random images, training can diverge with a high learning rate for the student, or with an adapter on wide features.
GENTLE = ("--set", "student_learning_rate=0.01", "--set", "adapter_kind=logit")
CLASSES = 10
PACK = 8
ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1"}
# One trial with a live teacher, in a separate process.
ONE_TRIAL = """
import json, sys
from pathlib import Path
from trainables.costs.epoch import run_epoch
from trainables.data import load_dataset
from trainables.teacher.files import ensure_teacher, load_teacher
from trainables.process.threads import use_one_thread
from trainables.run.run import DistillationRun
from trainables.spec.trial import TrialConfig
use_one_thread()
config = TrialConfig(**json.loads(sys.argv[1]))
dataset = load_dataset(config.dataset, None, seed=config.split_seed)
teacher = load_teacher(ensure_teacher(config, dataset, Path(sys.argv[2])), config, dataset)
run = DistillationRun(config, dataset, teacher)
while not run.finished:
    measures = run_epoch(run)
print(json.dumps(measures))
"""
# The first script only imports the libraries for a trial. The second runs one epoch of a trial. Both then print "ready"
# and wait for the memory measurement.
LIBRARIES = """
import sys
import trainables.tune.trainable, torch, pyarrow, sklearn.datasets
from trainables.process.threads import use_one_thread
use_one_thread()
print("ready", flush=True)
sys.stdin.read()
"""
TRIAL_OVER_A_LARGE_FILE = """
import json, sys
from pathlib import Path
import trainables.tune.trainable, torch
from trainables.data import load_dataset
from trainables.models import build_model
from trainables.teacher_outputs.frozen import FrozenTeacher
from trainables.teacher_outputs.batch import TeacherBatch
from trainables.storage.rows import map_rows
from trainables.process.threads import use_one_thread
from trainables.run.run import DistillationRun
from trainables.spec.trial import TrialConfig

class LargeFile:
    forwards = 0
    stored = True
    def __init__(self, rows, head):
        self.rows, self.head, self.source = rows, head, rows
        self.numbers_per_sample = head.in_features + head.out_features
    @torch.no_grad()
    def train_batch(self, indices, slot, images):
        step = len(self.rows) // 54_321
        feature = self.rows[(indices * step + slot) % len(self.rows)].float()  # from all over the file
        return TeacherBatch(feature, self.head(feature))
    def validation(self, indices, images):
        return self.train_batch(indices, 0, images)

use_one_thread()
path, rows, dataset, root, student, teacher = sys.argv[1:]
config = TrialConfig(dataset=dataset, student=student, teacher=teacher)
data = load_dataset(dataset, root or None, seed=config.split_seed)
frozen = FrozenTeacher(build_model(teacher, num_classes=data.num_classes, in_channels=data.info.channels))
dim = frozen.head.in_features
mapped = map_rows(Path(path), {"of": "benchmark"}, shape=(int(rows), dim), dtype="float16")
run = DistillationRun(config, data, frozen, teacher_outputs=LargeFile(mapped, frozen.head))
run.train_epoch()
run.evaluate()
print("ready", flush=True)
sys.stdin.read()
"""


def start_study(*flags: object, environment: dict[str, str] | None = None) -> float:
    """Run a `study.launch` command and return the wall time in seconds.

    Raises:
        RuntimeError: the command failed. The message contains the output.
    """
    command = [sys.executable, "-m", "study.launch", "--quiet", *map(str, flags)]
    began = time.monotonic()
    done = subprocess.run(
        command, check=False, capture_output=True, text=True, env={**os.environ, **(environment or {})}
    )
    if done.returncode != 0:
        raise RuntimeError(f"{' '.join(command)}: exit {done.returncode}\n{done.stdout}\n{done.stderr}")
    return time.monotonic() - began


def in_turn(arms: dict[str, Callable[[], float]], runs: int) -> dict[str, list[float]]:
    """Call every arm `runs` times, one arm after the other, and return the results."""
    figures: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(runs):
        for name, measure in arms.items():
            load = os.getloadavg()[0]
            figures[name].append(measure())
            print(f"  run {number + 1} {name:28} {figures[name][-1]:9.2f} s  (load before {load:.1f})", flush=True)
    return figures


def ratios(part: str, figures: dict[str, list[float]], over: Iterable[tuple[str, str]], **about: object) -> list[dict]:
    """Return one row per (slower arm, faster arm)."""
    return [
        {
            "part": part, "arm": faster, "against": slower,
            "ratio": statistics.median(a / b for a, b in zip(figures[slower], figures[faster], strict=True)),
            "seconds": statistics.median(figures[faster]), "seconds_against": statistics.median(figures[slower]),
            "n": len(figures[faster]), **about,
        }
        for slower, faster in over
    ]  # fmt: skip


def write_images(folder: Path, samples: int) -> str:
    """Write an image folder with CIFAR-shaped noise, with brightness rising from class to class.

    Returns:
        Folder name as a dataset.
    """
    import torch
    from torchvision.io import write_png

    generator = torch.Generator().manual_seed(0)
    for number in range(samples):
        path = folder / "train" / f"class-{number % CLASSES}" / f"{number:05d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        noise = torch.randint(128, (3, 32, 32), dtype=torch.uint8, generator=generator)
        write_png(noise + 12 * (number % CLASSES), str(path))
    return f"image_folder:{folder}"


def pair_part(runs: int, *, quick: bool) -> list[dict]:
    """Compare stored teacher outputs with a live teacher over a whole study with a CIFAR pair."""
    teacher, student = ("cnn_16_32", "cnn_3_4") if quick else PAIR
    samples, epochs, trials = (300, 2, 2) if quick else (1_200, 4, 13)
    with tempfile.TemporaryDirectory(prefix="study-") as name:
        folder = Path(name)
        dataset = write_images(folder / "images", samples)
        common = [
            "--space", "temperature", "--dataset", dataset, "--student", student, "--teacher", teacher,
            "--promising", 1, "--replicates", 1, "--sampler", "random", *TEACHER_FLAGS, *GENTLE,
        ]  # fmt: skip
        whole = ["--epochs", epochs, "--trials", trials]

        def study(*flags: object) -> Callable[[], float]:
            def measure() -> float:
                output = Path(tempfile.mkdtemp(dir=folder))
                if (folder / "teachers").exists():
                    shutil.copytree(folder / "teachers", output / "teachers")
                seconds = start_study(*common, *flags, "--output-dir", output, "--name", "study")
                if not (folder / "teachers").exists():
                    shutil.copytree(output / "teachers", folder / "teachers")
                shutil.rmtree(output)
                return seconds

            return measure

        study("--smoke")()  # trains the teacher and warms the caches
        figures = in_turn(
            {
                "stored, default precision": study(*whole, "--teacher-outputs", "stored"),
                "live, fp32": study(*whole, "--teacher-outputs", "live", "--precision", "fp32"),
                "stored, fp32": study(*whole, "--teacher-outputs", "stored", "--precision", "fp32"),
            },
            runs,
        )
    over = [("live, fp32", "stored, default precision"), ("live, fp32", "stored, fp32")]
    return ratios("pair", figures, over, pair=f"{teacher}->{student}", trials=trials + 3, epochs=epochs)


def digits_part(runs: int, *, quick: bool) -> list[dict]:
    """Compare a study with one process per trial, in wall seconds per trial."""
    trials, alone, epochs = (4, 2, 2) if quick else (400, 16, 15)
    under_way: dict[str, list[float]] = {}
    with tempfile.TemporaryDirectory(prefix="study-") as name:
        folder = Path(name)
        common = ["--space", "adapter_width", "--sampler", "random", "--epochs", epochs, "--replicates", 1]
        start_study(*common, "--trials", 2, "--output-dir", folder, "--name", "first")  # trains the teacher
        configs = [
            json.dumps({"method": "pesf_kd", "adapter_width": 1 + number, "epochs": epochs, "seed": number})
            for number in range(alone)
        ]

        def one_process_each() -> float:
            began = time.monotonic()
            with ThreadPoolExecutor(CORES) as pool:
                list(pool.map(lambda config: _one_trial(config, folder / "teachers"), configs))
            return (time.monotonic() - began) / alone

        def study(name: str, *flags: object) -> Callable[[], float]:
            def measure() -> float:
                output = Path(tempfile.mkdtemp(dir=folder))
                shutil.copytree(folder / "teachers", output / "teachers")
                ran = ["--trials", trials, "--promising", 1, "--output-dir", output, "--name", "study"]
                seconds = start_study(*common, *ran, *flags)
                epochs_of = read_epochs(output / "study").group_by("trial_id").aggregate([("time", "max")])
                ends = sorted(end.timestamp() for end in epochs_of["time_max"].to_pylist())
                under_way.setdefault(f"{name}, under way", []).append((ends[-1] - ends[0]) / (len(ends) - 1))
                shutil.rmtree(output)
                return seconds / len(ends)

            return measure

        packed, single = f"study, packed by {PACK}", "one process per trial"
        figures = in_turn(
            {single: one_process_each, "study": study("study"), packed: study(packed, "--pack", PACK)}, runs
        )
    figures |= under_way
    over = [(single, name) for name in figures if name != single]
    return ratios("digits", figures, over, trials=trials + 3, epochs=epochs)  # two controls and a replicate


def _one_trial(config: str, teachers: Path) -> None:
    command = [sys.executable, "-c", ONE_TRIAL, config, str(teachers)]
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **ONE_THREAD})


def memory_part(*, quick: bool, data_root: Path | None) -> list[dict]:
    """Measure the node memory added by another concurrent trial, beyond the libraries."""
    import torch

    from trainables.spec.architectures import feature_dim
    from trainables.storage.rows import write_rows

    size = 2**26 if quick else 2**30
    width = feature_dim(MEMORY_TEACHER)
    assert width is not None
    rows = size // (2 * width)
    cases = [("digits", "")]
    if data_root is not None:
        cases.append(("fashion_mnist", str(data_root)))
    found = []
    with tempfile.TemporaryDirectory(prefix="study-") as name:
        path = Path(name) / "outputs.arrow"
        write_rows(path, torch.zeros(rows, width, dtype=torch.float16), {"of": "benchmark"})
        libraries = _memory_of_each([sys.executable, "-c", LIBRARIES], 2 if quick else 3)
        for dataset, root in cases:
            arguments = [str(path), str(rows), dataset, root, "cnn_3_4", MEMORY_TEACHER]
            trial = [sys.executable, "-c", TRIAL_OVER_A_LARGE_FILE, *arguments]
            totals = _memory_of_each(trial, 2 if quick else 3)
            added = [(b - a) - (d - c) for (a, b), (c, d) in zip(_steps(totals), _steps(libraries), strict=True)]
            found.append(
                {
                    "part": "memory", "dataset": dataset, "outputs_bytes": size,
                    "mb_per_additional_trial": statistics.median(added) / 1e6,
                    "mb_of_libraries": statistics.median(b - a for a, b in _steps(libraries)) / 1e6, "n": len(added),
                }
            )  # fmt: skip
    return found


def _steps(totals: list[int]) -> list[tuple[int, int]]:
    return list(itertools.pairwise(totals))


def _memory_of_each(command: list[str], most: int) -> list[int]:
    """Return the total proportional memory (PSS, bytes) for 1, 2, ... `most` of these processes."""
    processes: list[subprocess.Popen] = []
    totals = []
    try:
        for _ in range(most):
            process = subprocess.Popen(
                command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=WORKERS | dict(os.environ)
            )
            processes.append(process)
            assert process.stdout is not None
            assert process.stdout.readline() == "ready\n", "the process failed; what it said is above"
            totals.append(sum(_proportional_memory(process.pid) for process in processes))
    finally:
        for process in processes:
            process.communicate()
    return totals


def _proportional_memory(pid: int) -> int:
    """Return a process's PSS in bytes: private pages, plus a proportional part of shared pages."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return 1024 * int(line.split()[1])
    raise RuntimeError(f"/proc/{pid}/smaps_rollup has no Pss")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny studies, once")
    parser.add_argument("--part", choices=("pair", "digits", "memory", "all"), default="all")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--data-root", type=Path, default=os.environ.get("PESFKD_DATA_ROOT"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    runs = 1 if arguments.quick else arguments.runs
    rows: list[dict[str, Any]] = []
    if arguments.part in ("pair", "all"):
        rows += pair_part(runs, quick=arguments.quick)
    if arguments.part in ("digits", "all"):
        rows += digits_part(runs, quick=arguments.quick)
    if arguments.part in ("memory", "all"):
        rows += memory_part(quick=arguments.quick, data_root=arguments.data_root)
    for row in rows:
        print("  ".join(f"{k} {v:.3g}" if isinstance(v, float) else f"{k} {v}" for k, v in row.items()))
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
