"""What a training step on text costs over a step of cross-entropy on the same student.

    python benchmarks/text_step.py [--quick] [--teacher bert_4_128] [--student bert_2_128] [--rounds N] [--json PATH]

The product's own runs on random sentences of 4 to 40 tokens, batches of 32 by length, in float32 on one thread:
PESF-KD with stored outputs (mapped from a file of float16; filling it is left out) and with a live teacher, plain KD,
patient KD where both nets are equally wide, and Pea-KD, whose student runs its layers twice. All arms see the same
batches and take turns, in an order drawn anew each round; a ratio is the median over rounds of the ratio within a
round, of the process's own time.
"""

import argparse
import json
import os
import random
import sys
import tempfile
from collections.abc import Callable
from itertools import chain, repeat
from pathlib import Path

sys.path[0] = str(Path(__file__).parents[1])

import torch

from benchmarks.step import WARM_UP, median_ratio, timed
from study.environment import restart_as_worker
from trainables.data.registry import dataset_info
from trainables.data.text.dataset import TextDataset, TextSplit
from trainables.data.text.tokens import Tokens
from trainables.learners import build_network
from trainables.loss_log import LossLog
from trainables.models.names import layers_and_width
from trainables.teacher import FrozenTeacher
from trainables.teacher_outputs_store import StoredTeacherOutputs, TeacherOutputsStore
from trainables.training import DistillationRun, use_one_thread
from trainables.trial import TrialConfig

STORED, LIVE = "stored", "live"
ARMS = (("ce", LIVE), ("pesf_kd", STORED), ("pesf_kd", LIVE), ("kd", STORED), ("pkd", LIVE), ("pea_kd", STORED))
QUICK = ("bert_2_32", "bert_1_32")
TASK = "glue:sst2"
BATCH, BATCHES, VOCABULARY = 32, 60, 8_000


def random_sentences(samples: int) -> TextDataset:
    """Sentences of random tokens and labels, under the name of SST-2."""
    drawn = torch.Generator().manual_seed(0)
    lengths = torch.randint(4, 41, (samples,), generator=drawn)
    offsets = torch.cat([torch.zeros(1, dtype=torch.int64), lengths.cumsum(0)])
    ids = torch.randint(1, VOCABULARY, (int(offsets[-1]),), generator=drawn, dtype=torch.int32)
    tokens = Tokens(ids, offsets, lengths)
    split = TextSplit(tokens, torch.randint(2, (samples,), generator=drawn), torch.arange(samples))
    return TextDataset(
        dataset_info(TASK), train=split, validation=split, read_test=lambda: split, seed=0, digest="random",
        tokeniser=_Vocabulary(), max_length=128,
    )  # fmt: skip


class _Vocabulary:
    vocabulary_size = VOCABULARY


def build_step(
    method: str, outputs: str, nets: tuple[str, str], dataset: TextDataset, teacher: FrozenTeacher, folder: Path
) -> Callable[[], object]:
    """One step of that method on the next batch."""
    config = TrialConfig(method=method, dataset=TASK, teacher=nets[0], student=nets[1], pea_epochs=0)
    stored = None
    if outputs == STORED:
        store = TeacherOutputsStore(folder, teacher, dataset, architecture=nets[0], augmentation="none")
        stored = StoredTeacherOutputs(store)
    run = DistillationRun(config, dataset, teacher if method != "ce" else None, teacher_outputs=stored)
    log = LossLog(run.method.gradients(config.model_dump()))
    run.begin_drawing()
    for trainer in run.trainers.values():
        trainer.module.train()
        trainer.begin_epoch(0)
    batches = chain.from_iterable(run.batches.of_epoch(0, stored) for _ in repeat(None))
    return lambda: run.train_batch(next(batches), log)


def measure(nets: tuple[str, str], rounds: int, repeats: int, folder: Path) -> list[dict]:
    """One row an arm."""
    dataset = random_sentences(BATCH * BATCHES)
    teacher = FrozenTeacher(build_network(nets[0], dataset))
    alike = layers_and_width(nets[0])[1] == layers_and_width(nets[1])[1] and layers_and_width(nets[1])[0] > 1
    arms = [arm for arm in ARMS if arm[0] != "pkd" or alike]
    steps = {arm: build_step(*arm, nets, dataset, teacher, folder) for arm in arms}
    seconds: dict[tuple[str, str], list[float]] = {arm: [] for arm in steps}
    load, order = os.getloadavg()[0], random.Random(0)
    for number in range(WARM_UP + rounds):
        for arm in order.sample(list(steps), len(steps)):
            taken = timed(steps[arm], repeats)
            if number >= WARM_UP:
                seconds[arm].append(taken)
    return [
        {
            "pair": " -> ".join(nets),
            "method": method,
            "outputs": outputs if method != "ce" else "none",
            "over_ce": median_ratio(seconds[method, outputs], seconds["ce", LIVE]),
            "n": rounds,
            "load": load,
        }
        for method, outputs in arms
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="tiny nets, a few rounds")
    parser.add_argument("--teacher", default="bert_4_128")
    parser.add_argument("--student", default="bert_2_128")
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--json", type=Path)
    arguments = parser.parse_args()
    restart_as_worker()
    use_one_thread()
    nets = QUICK if arguments.quick else (arguments.teacher, arguments.student)
    rounds, repeats = (3, 2) if arguments.quick else (arguments.rounds, 10)
    with tempfile.TemporaryDirectory(prefix="text-step-") as folder:
        rows = measure(nets, rounds, repeats, Path(folder))
    print(f"{rows[0]['pair']}, n = {rounds}, load before {rows[0]['load']:.1f}")
    for row in rows:
        print(f"  {row['method']:10} {row['outputs']:8} {row['over_ce']:6.2f}", flush=True)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
