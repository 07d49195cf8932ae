"""Savings by mini-batches with similar lengths on text, and step cost with stored teacher outputs.

Every arm runs real steps with the product's own runs (`DistillationRun.train_batch`), including batch gathering. All
arms for a pair take turns in one process on one thread, in a new random order each round. Within a round all arms see
the same batches from the same epoch. A ratio is the median over rounds of the ratio within a round, without the first
round. Time is process time.

- `student_only`: cross-entropy on the product's batches, with similar lengths and padded to a multiple of 8.
- `padded_to_128`: the same samples in the same batches, each padded to 128 tokens.
- `shuffled`: as many samples in batches with any lengths, padded to the longest sample in each batch.
- `kd_stored`, `pesf_kd_stored`: teacher outputs are read from the product's store, a memory-mapped file. Filling the
  store is not timed.
- `pesf_kd_live`: the frozen teacher computes every batch.

With a data root, the samples are from SST-2. Without one, or with `--quick`, the samples are random words.

    python benchmarks/text.py [--quick] [--pairs small|base|all] [--rounds N] [--data-root FOLDER] [--json PATH]
"""

import argparse
import json
import os
import random
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

sys.path[0] = str(Path(__file__).parents[1])  # this script's folder has a study.py, which would hide the package

from trainables.batches.images import Batch
from trainables.data import load_dataset
from trainables.data.text.dataset import TextDataset, TextSplit
from trainables.data.text.lengths import length_bucketed_batches
from trainables.data.text.tokeniser import MAX_LENGTH, train_tokeniser
from trainables.data.text.tokens import tokenise
from trainables.models.text_zoo import build_text_model
from trainables.process.environment import restart_as_worker
from trainables.process.randomness import seeded
from trainables.process.threads import use_one_thread
from trainables.run.run import DistillationRun
from trainables.spec.datasets import DATASETS
from trainables.spec.trial import TrialConfig
from trainables.steps.loss_log import LossLog
from trainables.teacher_outputs.frozen import FrozenTeacher
from trainables.teacher_outputs.store import StoredTeacherOutputs, TeacherOutputsStore

WARM_UP = 1
ARMS = ("student_only", "padded_to_128", "shuffled", "kd_stored", "pesf_kd_stored", "pesf_kd_live")


class Pair(NamedTuple):
    """Teacher, student, and measuring effort."""

    teacher: str
    student: str
    rounds: int
    batches: int  # per round

    @property
    def name(self) -> str:
        """Name in tables."""
        return f"{self.teacher}->{self.student}"


PAIRS = {"small": (Pair("bert_4_128", "bert_2_128", 15, 12),), "base": (Pair("bert_12_768", "bert_6_768", 5, 3),)}
QUICK = (Pair("bert_2_32", "bert_1_32", 2, 2),)


def made_up_dataset(samples: int = 2_000) -> TextDataset:
    """Return a dataset with random words under the name of SST-2, with similar sentence lengths."""
    drawn = random.Random(0)
    words = ["".join(drawn.choices("aeioulnrst", k=drawn.randrange(2, 8))) for _ in range(500)]
    texts = [" ".join(drawn.choices(words, k=1 + min(50, int(drawn.expovariate(1 / 8))))) for _ in range(samples)]
    tokeniser = train_tokeniser(texts, vocabulary_size=1_000)
    tokens = tokenise(tokeniser, [texts], max_length=MAX_LENGTH)
    split = TextSplit(tokens, torch.arange(samples) % 2, torch.arange(samples))
    info = replace(DATASETS["glue:sst2"], split_sizes=(samples, samples, samples))
    return TextDataset(
        info, train=split, validation=split, read_test=lambda: split, seed=0, digest="made up", tokeniser=tokeniser,
        max_length=MAX_LENGTH,
    )  # fmt: skip


class Arm:
    """Benchmark arm for a pair.

    Args:
        name: one of `ARMS`.
        pair: teacher and student.
        dataset: the samples.
        teacher: the pair's frozen teacher.
        folder: folder for stored teacher outputs.
    """

    def __init__(self, name: str, pair: Pair, dataset: TextDataset, teacher: FrozenTeacher, folder: Path) -> None:
        stored = None
        if name.endswith("_stored"):
            store = TeacherOutputsStore(folder, teacher, dataset, architecture=pair.teacher, augmentation="none")
            stored = StoredTeacherOutputs(store)
        method = "ce" if name in ARMS[:3] else name.rsplit("_", 1)[0]
        config = TrialConfig(dataset=dataset.name, method=method, student=pair.student, teacher=pair.teacher)
        self._run = DistillationRun(config, dataset, teacher, teacher_outputs=stored)
        self._run.student.train()
        self._stored = stored
        self._train = partial(self._run.train_batch, log=LossLog(self._run.method.gradients(config.model_dump())))
        self._split, self._padded = dataset.train, name == "padded_to_128"

    def steps(self, batches: list[Tensor]) -> float:
        """Run a step on each batch (sample indices) and return the process time in seconds."""
        started = time.process_time()
        for indices in batches:
            if self._padded:
                inputs = self._split.batch(indices, length=MAX_LENGTH)
                self._train(Batch(indices, 0, inputs, self._split.labels[indices]))
            else:
                self._train(self._run.batches.batch(indices, 0, self._stored))
        return time.process_time() - started


def rounds_of_batches(dataset: TextDataset, batch_size: int, count: int) -> Iterator[dict[str, list[Tensor]]]:
    """Yield without end `count` batches with similar lengths and as many with any lengths."""
    epoch = 0
    while True:
        lengths = dataset.train.lengths
        similar = length_bucketed_batches(lengths, batch_size=batch_size, data_seed=0, epoch=epoch)
        generator = torch.Generator().manual_seed(epoch)
        shuffled = torch.randperm(len(lengths), generator=generator).split(batch_size)
        for start in range(0, len(similar) - count, count):
            yield {"similar": similar[start : start + count], "any": list(shuffled[start : start + count])}
        epoch += 1


def measure(pair: Pair, dataset: TextDataset, rounds: int, folder: Path) -> list[dict]:
    """Return one row per arm, all arms timed in turn."""
    with seeded(0):
        teacher = FrozenTeacher(build_text_model(pair.teacher, dataset))
    arms = {name: Arm(name, pair, dataset, teacher, folder) for name in ARMS}
    batch_size = TrialConfig(dataset=dataset.name).batch_size
    batches = rounds_of_batches(dataset, batch_size, pair.batches)
    load, order = os.getloadavg()[0], random.Random(0)
    seconds: dict[str, list[float]] = {name: [] for name in arms}
    for number in range(WARM_UP + rounds):
        own = next(batches)
        for name in order.sample(ARMS, len(ARMS)):
            taken = arms[name].steps(own["any" if name == "shuffled" else "similar"])
            if number >= WARM_UP:
                seconds[name].append(taken / pair.batches)
    ratio: Callable[[str], list[float]] = lambda name: [  # noqa: E731
        a / b for a, b in zip(seconds[name], seconds["student_only"], strict=True)
    ]
    return [
        {
            "pair": pair.name,
            "arm": name,
            "ratio_to_student_only": statistics.median(ratio(name)),
            "low": min(ratio(name)),
            "high": max(ratio(name)),
            "ms": 1000 * statistics.median(seconds[name]),
            "batch": batch_size,
            "data": dataset.digest[:12],
            "n": rounds,
            "load": load,
        }
        for name in ARMS
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="one tiny pair on words of ours, two rounds")
    parser.add_argument("--pairs", choices=(*PAIRS, "all"), default="small")
    parser.add_argument("--rounds", type=int, help="in place of each pair's own number")
    parser.add_argument("--data-root", type=Path, default=os.environ.get("PESFKD_DATA_ROOT"))
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    restart_as_worker()
    use_one_thread()
    pairs = (
        QUICK if arguments.quick else sum(PAIRS.values(), ()) if arguments.pairs == "all" else PAIRS[arguments.pairs]
    )
    real = arguments.data_root is not None and not arguments.quick
    dataset = load_dataset("glue:sst2", arguments.data_root) if real else made_up_dataset()
    assert isinstance(dataset, TextDataset)
    print(f"{'pair':24} {'arm':16} {'/student':>8} {'lowest':>7} {'highest':>7} {'ms':>8} {'n':>4} {'load':>5}")
    rows: list[dict] = []
    with tempfile.TemporaryDirectory(prefix="text-") as folder:
        for pair in pairs:
            for row in measure(pair, dataset, arguments.rounds or pair.rounds, Path(folder)):
                print(
                    f"{row['pair']:24} {row['arm']:16} {row['ratio_to_student_only']:8.3f} {row['low']:7.3f} "
                    f"{row['high']:7.3f} {row['ms']:8.2f} {row['n']:4} {row['load']:5.1f}",
                    flush=True,
                )
                rows.append(row)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
