"""Cost of each method's step, relative to a step of the student alone and to PESF-KD as usually implemented.

Every arm runs real steps with the product's own runs (`DistillationRun.train_batch`) on random images, including batch
gathering. All arms for a pair take turns in one process on one thread, in a new random order each round. Other load on
the machine then affects all arms. A ratio is the median over rounds of the ratio within a round, without the first
rounds. Time is process time: on one thread without waiting, this is wall time minus the time taken by other processes.

- `student_only`: cross-entropy.
- `kd_live`, `pesf_kd_live`: the frozen teacher computes every batch.
- `pesf_kd_stored`: teacher outputs are read from the product's store, with features in a memory-mapped float16 file.
  Filling the store is not timed.
- `dml`: student and a peer with the teacher's architecture. Both are trained, each on the other's detached logits.

`fp32` and `bf16` are the product's precisions. `plain` is the product's code in float32 with PyTorch's default layout,
channels first. `over_plain` is the time for a `plain` PESF-KD step with a live teacher, divided by the arm's time.
`loop` is the same step written as in published code: same precision and layout, images from a DataLoader with
torchvision's transforms, gradients from autograd, the optimiser's default implementation, and losses and accuracies
read after every batch. The loop runs in a separate process. `over_loop` is the loop's time divided by the arm's time.
All other arms run in the environment of study workers (`trainables/process/environment.py`).

    python benchmarks/step.py [--quick] [--pairs cifar|small|tiny|all] [--rounds N] [--json PATH]
"""

import argparse
import json
import os
import random
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch.nn.functional import cross_entropy, kl_div, log_softmax

sys.path[0] = str(Path(__file__).parents[1])  # for importing `benchmarks.loader`

from benchmarks.loader import Shape, torchvision_batches
from trainables.batches.images import Batch
from trainables.data.dataset import Dataset, Split
from trainables.losses.logits import kd_loss
from trainables.models import build_model
from trainables.models.compute import arithmetic, feature_and_logits, place
from trainables.models.interface import DistillationModel
from trainables.process.environment import WORKERS, restart_as_worker
from trainables.process.threads import use_one_thread
from trainables.run.run import DistillationRun
from trainables.spec.datasets import DATASETS
from trainables.spec.precision import Precision, computes_bfloat16, resolve_precision
from trainables.spec.trial import TrialConfig
from trainables.steps.adapter import TeacherAdapter
from trainables.steps.loss_log import LossLog
from trainables.steps.sgd import Trainer
from trainables.teacher_outputs.frozen import FrozenTeacher
from trainables.teacher_outputs.store import StoredTeacherOutputs, TeacherOutputsStore

BATCH = 64
WARM_UP = 2
ARMS = ("student_only", "kd_live", "pesf_kd_live", "pesf_kd_stored", "dml")
PLAIN = ("plain", "pesf_kd_live")
LOOP = ("loop", "pesf_kd_live")


class Pair(NamedTuple):
    """Teacher, student, and image shape."""

    teacher: str
    student: str
    image_size: int
    channels: int
    num_classes: int
    rounds: int
    repeats: int  # steps timed together, so short steps exceed the clock's resolution

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.teacher}->{self.student}@{self.image_size}"


CIFAR = (
    Pair("resnet56", "resnet20", 32, 3, 100, 11, 1),
    Pair("resnet32x4", "resnet8x4", 32, 3, 100, 7, 1),
    Pair("wrn_40_2", "wrn_16_2", 32, 3, 100, 7, 1),
)
SMALL = (
    Pair("cnn_32_64", "cnn_16_32", 28, 1, 10, 40, 2),
    Pair("cnn_32_64", "cnn_3_4", 8, 1, 10, 100, 10),
)
QUICK = (Pair("cnn_16_32", "cnn_3_4", 8, 1, 10, 4, 2),)


class MutualLearning:
    """Deep mutual learning of two networks, with the product's own trainer and losses."""

    def __init__(self, pair: Pair, precision: Precision) -> None:
        self.precision = precision
        self.device = torch.device("cpu")
        nets = [
            place(build_model(name, num_classes=pair.num_classes, in_channels=pair.channels), self.device, precision)
            for name in (pair.student, pair.teacher)
        ]
        self.trainers = [
            Trainer(net, learning_rate=0.01, momentum=0.9, weight_decay=5e-4, schedule="constant", epochs=1)
            for net in nets
        ]

    def train_batch(self, batch: Batch) -> None:
        """Train both networks for one step, on logits computed before the step."""
        images, labels = batch.inputs, batch.labels
        with arithmetic(self.precision, self.device):
            logits = [feature_and_logits(trainer.module, images)[1] for trainer in self.trainers]
        for trainer, own, other in zip(self.trainers, logits, reversed(logits), strict=True):
            loss = cross_entropy(own, labels) + kd_loss(own, other.detach(), temperature=1.0)
            trainer.forget_gradients()
            loss.backward()
            trainer.step()


class PublishedLoop:
    """PESF-KD step with a live teacher, written as in published training loops."""

    def __init__(self, pair: Pair, dataset: Dataset) -> None:
        nets = [
            build_model(name, num_classes=pair.num_classes, in_channels=pair.channels)
            for name in (pair.student, pair.teacher)
        ]
        self.student, self.teacher = nets[0].train(), nets[1].eval()
        self.adapter = TeacherAdapter(self.teacher.head.in_features, pair.num_classes, 16)
        self.optimisers = [
            torch.optim.SGD(module.parameters(), lr=0.01, momentum=0.9, weight_decay=5e-4)
            for module in (self.student, self.adapter)
        ]
        info = dataset.info
        shape = Shape(pair.name, pair.channels, pair.image_size, info.padding, info.mirrored)
        self.batches = torchvision_batches(shape, dataset.train.images, dataset.train.labels, pil=True)
        self.meters: dict[str, list[float]] = defaultdict(list)

    def step(self) -> None:
        """Load a batch, train on it, and read loss and accuracies."""
        images, labels = next(self.batches)
        logits = self.student(images)
        with torch.no_grad():
            feature = self.teacher.features(images)
            taught = self.teacher.head(feature)
        adapted = self.adapter(feature, taught)
        soft = kl_div(log_softmax(logits / 4, 1), log_softmax(adapted / 4, 1), reduction="batchmean", log_target=True)
        loss = cross_entropy(logits, labels) + 0.9 * 16 * soft + cross_entropy(adapted, labels)
        for optimiser in self.optimisers:
            optimiser.zero_grad()
        loss.backward()
        for optimiser in self.optimisers:
            optimiser.step()
        self.meters["loss"].append(loss.item())
        hits = logits.topk(5, 1).indices == labels[:, None]
        for k in (1, 5):
            self.meters[f"top{k}"].append(hits[:, :k].any(1).float().mean().item())


class LoopOfItsOwn:
    """Published loop in a separate process, with the user's environment instead of a worker's."""

    def __init__(self, pair: Pair) -> None:
        users = {name: value for name, value in os.environ.items() if WORKERS.get(name) != value}
        command = [sys.executable, __file__, "--loop", pair.name]
        self._process = subprocess.Popen(
            command, env=users, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1
        )

    def __call__(self, repeats: int) -> float:
        """Run `repeats` steps and return the process time of the loop's process, in seconds."""
        print(repeats, file=self._process.stdin)
        return float(self._process.stdout.readline())

    def close(self) -> None:
        """End the process."""
        self._process.stdin.close()
        self._process.wait()


def serve_loop(pair: Pair) -> None:
    """Run the loop's process: read step counts from stdin, and print the seconds taken."""
    loop = PublishedLoop(pair, random_dataset(pair.image_size, pair.num_classes, 20 * BATCH))
    for line in sys.stdin:
        print(timed(loop.step, int(line)), flush=True)


def timed(step: Callable[[], object], repeats: int) -> float:
    """Call `step` `repeats` times and return the process time in seconds."""
    started = time.process_time()
    for _ in range(repeats):
        step()
    return time.process_time() - started


def random_dataset(image_size: int, num_classes: int, samples: int) -> Dataset:
    """Return random images with the shape and augmentation of a known dataset."""
    named = DATASETS[{8: "digits", 28: "fashion_mnist", 32: "cifar100"}[image_size]]
    generator = torch.Generator().manual_seed(0)
    shape = (samples, named.channels, image_size, image_size)
    images = torch.randint(256, shape, dtype=torch.uint8, generator=generator)
    labels = torch.randint(num_classes, (samples,), generator=generator)
    split = Split(images, labels, torch.arange(samples))
    info = replace(named, num_classes=num_classes)
    return Dataset(info, train=split, validation=split, read_test=lambda: split, seed=0, digest="random")


def random_teacher(pair: Pair) -> DistillationModel:
    """Return an untrained teacher with batch statistics from random images.

    Without them, the features in a deep network with random weights can exceed the range of a float16 file.
    """
    torch.manual_seed(0)
    model = build_model(pair.teacher, num_classes=pair.num_classes, in_channels=pair.channels)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        model.train()(torch.randn(BATCH, pair.channels, pair.image_size, pair.image_size))
    return model


def build_arms(
    pair: Pair, precisions: tuple[Precision, ...], folder: Path
) -> dict[tuple[str, str], Callable[[int], float]]:
    """Return a function per (mode, arm) that runs a given number of steps and returns the seconds taken."""
    dataset = random_dataset(pair.image_size, pair.num_classes, 20 * BATCH)
    modes: dict[str, Precision] = {"plain": "fp32"} | {precision: precision for precision in precisions}
    return {
        (mode, arm): partial(timed, _step(pair, arm, precision, dataset, folder, plain=mode == "plain"))
        for mode, precision in modes.items()
        for arm in (ARMS if mode != "plain" else ("student_only", "pesf_kd_live"))
    }


def _step(
    pair: Pair, arm: str, precision: Precision, dataset: Dataset, folder: Path, *, plain: bool
) -> Callable[[], object]:
    teacher = FrozenTeacher(random_teacher(pair))
    stored = None
    if arm == "pesf_kd_stored":
        folder = folder / f"{pair.name}-{precision}"
        store = TeacherOutputsStore(folder, teacher, dataset, architecture=pair.teacher, augmentation="views")
        stored = StoredTeacherOutputs(store)
    method = {"student_only": "ce", "dml": "ce", "kd_live": "kd"}.get(arm, "pesf_kd")
    config = TrialConfig(
        method=method, dataset=dataset.name, student=pair.student, teacher=pair.teacher, precision=precision,
        student_learning_rate=0.01, epochs=1,
    )  # fmt: skip
    run = DistillationRun(config, dataset, teacher, teacher_outputs=stored)
    log = LossLog(run.method.gradients(config.model_dump()))
    train = MutualLearning(pair, precision).train_batch if arm == "dml" else partial(run.train_batch, log=log)
    if plain:
        run.student.to(memory_format=torch.contiguous_format)
        teacher.to(memory_format=torch.contiguous_format)
    run.student.train()
    batches = endless_batches(run, stored)

    def step() -> None:
        batch = next(batches)
        train(batch._replace(inputs=batch.inputs.contiguous()) if plain else batch)

    return step


def endless_batches(run: DistillationRun, stored: StoredTeacherOutputs | None) -> Iterator[Batch]:
    while True:
        yield from run.batches.of_epoch(0, stored)


def measure(pair: Pair, precisions: tuple[Precision, ...], rounds: int, folder: Path) -> list[dict]:
    """Return one row per arm, all arms timed in turn."""
    loop = LoopOfItsOwn(pair)
    steps = {LOOP: loop} | build_arms(pair, precisions, folder)
    seconds: dict[tuple[str, str], list[float]] = {key: [] for key in steps}
    load = os.getloadavg()[0]
    order = random.Random(0)  # vary the predecessor: an arm is slower if the previous arm has filled the caches
    for number in range(WARM_UP + rounds):
        for key in order.sample(list(steps), len(steps)):
            taken = steps[key](pair.repeats) / pair.repeats
            if number >= WARM_UP:
                seconds[key].append(taken)
    loop.close()
    auto = resolve_precision("auto", student=pair.student, image_size=pair.image_size)
    return [
        {
            "pair": pair.name,
            "arm": arm,
            "precision": mode,
            "ratio_to_student_only": median_ratio(
                seconds[mode, arm], seconds["plain" if mode == "loop" else mode, "student_only"]
            ),
            "over_plain": median_ratio(seconds[PLAIN], seconds[mode, arm]),
            "over_loop": median_ratio(seconds[LOOP], seconds[mode, arm]),
            "ms": 1000 * statistics.median(seconds[mode, arm]),
            "default": mode == auto,
            "n": rounds,
            "load": load,
        }
        for mode, arm in steps
    ]


def median_ratio(above: list[float], below: list[float]) -> float:
    return statistics.median(a / b for a, b in zip(above, below, strict=True))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one tiny pair, a few rounds")
    parser.add_argument("--pairs", choices=("cifar", "small", "tiny", "all"), default="all")
    parser.add_argument("--rounds", type=int, help="in place of each pair's own number")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--loop", choices=[pair.name for pair in CIFAR + SMALL + QUICK], help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.loop:
        torch.set_num_threads(1)
        serve_loop(next(pair for pair in CIFAR + SMALL + QUICK if pair.name == arguments.loop))
        return
    restart_as_worker()
    use_one_thread()
    chosen = (
        QUICK
        if arguments.quick
        else {"cifar": CIFAR, "small": SMALL, "tiny": SMALL[1:], "all": CIFAR + SMALL}[arguments.pairs]
    )
    precisions: tuple[Precision, ...] = ("fp32", "bf16") if computes_bfloat16("cpu") else ("fp32",)
    rows: list[dict] = []
    print(
        f"{'pair':26} {'precision':9} {'arm':15} {'/student':>8} {'over plain':>10} {'over loop':>9} {'ms':>8} "
        f"{'n':>4} {'load':>5}"
    )
    with tempfile.TemporaryDirectory(prefix="step-") as folder:
        for pair in chosen:
            measured = measure(pair, precisions, arguments.rounds or pair.rounds, Path(folder))
            for row in measured:
                mode = row["precision"] + ("*" if row["default"] else "")
                print(
                    f"{row['pair']:26} {mode:9} {row['arm']:15} {row['ratio_to_student_only']:8.3f} "
                    f"{row['over_plain']:10.2f} {row['over_loop']:9.2f} {row['ms']:8.2f} {row['n']:4} "
                    f"{row['load']:5.1f}",
                    flush=True,
                )
            rows += measured
    print("* the precision that `auto` comes to here")
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
