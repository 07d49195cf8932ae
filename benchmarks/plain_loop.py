"""The study that a user would write by hand: Optuna and PyTorch, a live teacher, processes that share a journal.

The trials are those of the default study: a search over the adapter width and learning rate, then controls and
repetitions of the best configs on fresh seeds. Nothing is recorded except the scores. Images are not augmented, which
favours this loop.

    python benchmarks/plain_loop.py FOLDER [--processes N] [--trials N] [--promising N] [--replicates N] [--epochs N]
        [--teacher-epochs N] [--sampler tpe|random]

Writes `FOLDER/trials.json` with the start and end of each trial in seconds since 1970.
"""

import argparse
import json
import multiprocessing
import os
import sys
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
sys.path[0] = str(Path(__file__).parents[1])  # this script's folder has a study.py, which would hide the package

import optuna
import torch
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from sklearn.datasets import load_digits
from torch import Tensor, nn
from torch.nn import functional

from trainables.models import build_model

TEMPERATURE = 4.0
BATCH = 64


class Adapter(nn.Module):
    """Residual bottleneck on the teacher's features, with the teacher's head."""

    def __init__(self, head: nn.Linear, width: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(head.in_features, width), nn.Linear(width, head.in_features)
        nn.init.zeros_(self.up.weight)
        nn.init.zeros_(self.up.bias)
        self.head = nn.Linear(head.in_features, head.out_features)
        self.head.load_state_dict(head.state_dict())

    def forward(self, feature: Tensor) -> Tensor:
        """Return the logits of the adapted features."""
        return self.head(feature + self.up(functional.relu(self.down(feature))))


def data() -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Return training and validation images and labels: 1,077 and 360 of the digits."""
    digits = load_digits()
    images = torch.tensor(digits.images, dtype=torch.float32).unsqueeze(1) / 16
    images = (images - images.mean()) / images.std()
    labels = torch.tensor(digits.target)
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    train, validation = order[:1077], order[1077:1437]
    return images[train], labels[train], images[validation], labels[validation]


def train_teacher(path: Path, epochs: int) -> None:
    images, labels, _, _ = data()
    torch.manual_seed(0)
    model = build_model("cnn_32_64", num_classes=10, in_channels=1)
    optimiser = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9, weight_decay=5e-4, nesterov=True)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimiser, epochs)
    for _ in range(epochs):
        for batch in torch.randperm(len(labels)).split(BATCH):
            loss = functional.cross_entropy(model(images[batch]), labels[batch])
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
        schedule.step()
    torch.save(model.state_dict(), path)


def kd(student: Tensor, teacher: Tensor) -> Tensor:
    log_student, log_teacher = (functional.log_softmax(logits / TEMPERATURE, 1) for logits in (student, teacher))
    return functional.kl_div(log_student, log_teacher, reduction="batchmean", log_target=True) * TEMPERATURE**2


class Loop:
    """Trials of one process."""

    def __init__(self, teacher: Path, epochs: int) -> None:
        torch.set_num_threads(1)
        self.images, self.labels, self.val_images, self.val_labels = data()
        self.teacher = build_model("cnn_32_64", num_classes=10, in_channels=1)
        self.teacher.load_state_dict(torch.load(teacher))
        self.teacher.eval()
        self.epochs = epochs
        self.times: list[tuple[float, float]] = []

    def train(self, method: str, seed: int, width: int = 32, rate: float = 0.01) -> float:
        """Train one trial and return the validation accuracy."""
        began = time.time()
        torch.manual_seed(seed)
        student = build_model("cnn_3_4", num_classes=10, in_channels=1)
        optimisers = [torch.optim.SGD(student.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)]
        adapter = None
        if method == "pesf_kd":
            adapter = Adapter(self.teacher.head, width)
            optimisers.append(torch.optim.SGD(adapter.parameters(), lr=rate, momentum=0.9, weight_decay=5e-4))
        schedules = [torch.optim.lr_scheduler.CosineAnnealingLR(each, self.epochs) for each in optimisers]
        accuracy = 0.0
        for _ in range(self.epochs):
            student.train()
            for batch in torch.randperm(len(self.labels)).split(BATCH):
                images, labels = self.images[batch], self.labels[batch]
                logits = student(images)
                loss = functional.cross_entropy(logits, labels)
                if method != "ce":
                    with torch.no_grad():
                        feature = self.teacher.features(images)
                        target = self.teacher.head(feature)
                    if adapter is not None:
                        target = adapter(feature)
                        loss = loss + functional.cross_entropy(target, labels) + kd(target, logits.detach())
                    loss = loss + kd(logits, target.detach())
                for each in optimisers:
                    each.zero_grad()
                loss.backward()
                for each in optimisers:
                    each.step()
            for schedule in schedules:
                schedule.step()
            student.eval()
            with torch.no_grad():
                accuracy = (student(self.val_images).argmax(1) == self.val_labels).float().mean().item()
        self.times.append((began, time.time()))
        return accuracy


def work(number: int, folder: Path, options: argparse.Namespace) -> None:
    """Run this process's share: search trials until all are done, then every N-th of the rest."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    loop = Loop(folder / "teacher.pt", options.epochs)
    storage = JournalStorage(JournalFileBackend(str(folder / "optuna.log")))
    sampler: Any = optuna.samplers.RandomSampler(seed=number)
    if options.sampler == "tpe":
        sampler = optuna.samplers.TPESampler(seed=number, multivariate=True, constant_liar=True)
    study = optuna.create_study(
        storage=storage, study_name="plain", direction="maximize", load_if_exists=True, sampler=sampler
    )

    def objective(trial: optuna.Trial) -> float:
        width = trial.suggest_int("adapter_width", 1, 256, log=True)
        rate = trial.suggest_float("adapter_learning_rate", 1e-3, 0.1, log=True)
        return loop.train("pesf_kd", 1000 + trial.number, width, rate)

    ended = optuna.study.MaxTrialsCallback(options.trials, states=None)
    share = options.trials // options.processes + (number < options.trials % options.processes)
    study.optimize(objective, n_trials=share, callbacks=[ended])
    while sum(each.state.is_finished() for each in study.get_trials(deepcopy=False)) < options.trials:
        time.sleep(0.05)
    best = sorted(study.get_trials(deepcopy=False), key=lambda each: -(each.value or 0))[: options.promising]
    seeds = range(1, options.replicates + 1)
    rest: list[tuple[Any, ...]] = [(method, seed) for seed in seeds for method in ("kd", "ce")]
    rest += [
        ("pesf_kd", seed, each.params["adapter_width"], each.params["adapter_learning_rate"])
        for seed in seeds
        for each in best
    ]
    for each in rest[number :: options.processes]:
        loop.train(*each)
    (folder / f"times-{number}.json").write_text(json.dumps(loop.times))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    for name, default in (("processes", 2), ("trials", 24), ("promising", 3), ("replicates", 12), ("epochs", 15),
                          ("teacher-epochs", 30)):  # fmt: skip
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--sampler", choices=("tpe", "random"), default="tpe")
    options = parser.parse_args()
    options.folder.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(1)
    if not (options.folder / "teacher.pt").exists():
        train_teacher(options.folder / "teacher.pt", options.teacher_epochs)
    context = multiprocessing.get_context("fork")  # the libraries are imported once
    arguments = [(number, options.folder, options) for number in range(options.processes)]
    processes = [context.Process(target=work, args=each) for each in arguments]
    for each in processes:
        each.start()
    for each in processes:
        each.join()
        if each.exitcode:
            raise SystemExit(f"a process ended with code {each.exitcode}")
    times = [span for number in range(options.processes)
             for span in json.loads((options.folder / f"times-{number}.json").read_text())]  # fmt: skip
    (options.folder / "trials.json").write_text(json.dumps(sorted(times)))


if __name__ == "__main__":
    main()
