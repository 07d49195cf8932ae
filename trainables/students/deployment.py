"""A student's deployment costs: parameters, FLOPs, and the ONNX program's size and latency.

Latency is measured with ONNX Runtime on this machine's CPU, on random images, for a stated number of threads. After
warm-up runs, single runs are timed in rounds, in which batch sizes alternate. Other programs can only lengthen runs,
some of them for seconds. The latency is therefore the median over all runs in the quieter half of the rounds: the
rounds with the lower medians. The 10th and 90th percentile over all runs are returned too, and show how quiet the
machine was. These values do not depend on the weights, so an architecture is measured once, with fresh weights. The
size excludes the study facts added by an export (about a thousand bytes).

FLOPs are for a forward pass of one image, counted as in `trainables.costs.ledger`. Parameters are all trained numbers.
Normalisation layers' running statistics count in the size, but not as parameters.
"""

import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import torch
from torch import Tensor

from trainables.costs.ledger import FlopCounter
from trainables.models import CheckpointInfo, build_model
from trainables.process.randomness import generator_from, seeded
from trainables.spec.measures import DEPLOY_BATCHES, DEPLOY_FLOPS, DEPLOY_PARAMETERS, DEPLOY_SIZE, DEPLOY_THREADS
from trainables.steps.sgd import count_parameters
from trainables.students.export import IMAGES, OUTPUT, ExportError, program_of
from trainables.students.file import KeptStudent, Student

WARM_UP_RUNS: Final = 20
# Timed runs per batch size: number of rounds, seconds per round, and smallest number of runs per round.
ROUNDS: Final = 10
SECONDS_OF_A_ROUND: Final = 0.1
RUNS_OF_A_ROUND: Final = 3
_PERCENTILES: Final = (10.0, 90.0)
_COUNTED: Final = 2  # images in a counted forward pass


@dataclass(frozen=True)
class Latency:
    """Time of a program's run.

    Args:
        batch: images in a run.
        median_seconds: median over the runs in the quieter half of the rounds.
        low_seconds: 10th percentile over all runs.
        high_seconds: 90th percentile over all runs.
        runs: number of timed runs.
    """

    batch: int
    median_seconds: float
    low_seconds: float
    high_seconds: float
    runs: int

    @property
    def facts(self) -> dict[str, float]:
        """The values, named as in `DEPLOY_FACTS`."""
        prefix = f"deploy/latency_{self.batch}"
        return {
            f"{prefix}_seconds": self.median_seconds,
            f"{prefix}_low_seconds": self.low_seconds,
            f"{prefix}_high_seconds": self.high_seconds,
            f"{prefix}_runs": float(self.runs),
        }


def open_program(content: bytes, *, threads: int) -> Any:
    """Return a program's ONNX Runtime session on the CPU.

    Args:
        content: ONNX file content.
        threads: threads per operator; operators run one after the other.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def as_function(session: Any) -> Callable[[Tensor], Tensor]:
    """Return a program for images as a function returning logits (N, C)."""
    return lambda images: torch.from_numpy(session.run([OUTPUT], {IMAGES: images.contiguous().numpy()})[0])


def measure_latency(content: bytes, shape: tuple[int, int, int], *, threads: int) -> list[Latency]:
    """Time a program for images, for each batch size in `DEPLOY_BATCHES`.

    Nothing else should run on the machine.

    Args:
        content: ONNX file content.
        shape: image channels, height and width.
        threads: number of threads.
    """
    session = open_program(content, threads=threads)
    images = {batch: _random_images(batch, shape).numpy() for batch in DEPLOY_BATCHES}
    for each in images.values():
        for _ in range(WARM_UP_RUNS):
            session.run([OUTPUT], {IMAGES: each})
    seconds: dict[int, list[list[float]]] = {batch: [] for batch in images}
    for _ in range(ROUNDS):
        for batch, each in images.items():
            seconds[batch].append(_round(session, each))
    return [_latency(batch, each) for batch, each in seconds.items()]


def _round(session: Any, images: Any) -> list[float]:
    """Return the seconds of each run in a round."""
    seconds: list[float] = []
    end = time.perf_counter() + SECONDS_OF_A_ROUND
    while (began := time.perf_counter()) < end or len(seconds) < RUNS_OF_A_ROUND:
        session.run([OUTPUT], {IMAGES: images})
        seconds.append(time.perf_counter() - began)
    return seconds


def _latency(batch: int, rounds: list[list[float]]) -> Latency:
    quieter = sorted(rounds, key=np.median)[: math.ceil(len(rounds) / 2)]
    every = np.concatenate(rounds)
    low, high = np.percentile(every, _PERCENTILES)
    return Latency(batch, float(np.median(np.concatenate(quieter))), float(low), float(high), len(every))


def measure_student(
    name: str, *, num_classes: int, shape: tuple[int, int, int], threads: int | None
) -> Mapping[str, float]:
    """Measure a student architecture for images, with fresh weights.

    Args:
        name: architecture name.
        num_classes: number of classes.
        shape: image channels, height and width.
        threads: ONNX Runtime's thread count; None to count parameters and FLOPs alone, without ONNX.

    Returns:
        The values, named as in `DEPLOY_FACTS`.

    Raises:
        ExportError: the architecture cannot be exported, or the program cannot be run.
    """
    channels = shape[0]
    with seeded(0):
        model = build_model(name, num_classes=num_classes, in_channels=channels).eval()
    with FlopCounter() as counter, torch.no_grad():
        model.head(model.features(_random_images(_COUNTED, shape).float()))
    facts = {DEPLOY_PARAMETERS: float(count_parameters([model])), DEPLOY_FLOPS: counter.flops / _COUNTED}
    if threads is None:
        return facts
    info = CheckpointInfo(name, num_classes, channels, (0.5,) * channels, (0.25,) * channels, "")
    images = _random_images(_COUNTED, shape)
    student = Student(model, info, "")
    content = program_of(KeptStudent(student, images, student.logits(images)), "onnx", {})
    try:
        latencies = measure_latency(content, shape, threads=threads)
    except Exception as error:  # the runtime raises any type
        raise ExportError(f"the program of {name} cannot be run: {type(error).__name__}: {error}") from error
    facts |= {DEPLOY_SIZE: float(len(content)), DEPLOY_THREADS: float(threads)}
    return facts | {key: value for each in latencies for key, value in each.facts.items()}


def _random_images(batch: int, shape: tuple[int, int, int]) -> torch.Tensor:
    return torch.randint(0, 256, (batch, *shape), dtype=torch.uint8, generator=generator_from(0))
