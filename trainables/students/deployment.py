"""What a student costs where it runs: parameters, FLOPs, and size and latency of its ONNX program.

Latency is that of ONNX Runtime on the CPU of this machine, on random images, for a stated number of threads. After
warm-up runs, single runs are timed, and their median and their 10th and 90th percentile are returned. None of these
values depends on the weights, so an architecture is measured once, with fresh weights. The size is that of the program
without the facts about a study that an export adds, which are about a thousand bytes.

FLOPs are those of a forward pass of one image, counted as in `trainables.costs.ledger`. Parameters are all numbers that
are trained; the running statistics of normalisation layers are not counted, as they are in the size.
"""

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

# Number of timed runs: at most the first, and fewer, but at least the second, if they take longer than the seconds.
MOST_RUNS: Final = 300
LEAST_RUNS: Final = 30
SECONDS: Final = 2.0
WARM_UP_RUNS: Final = 20
_PERCENTILES: Final = (50.0, 10.0, 90.0)
_COUNTED: Final = 2  # images of a counted forward pass


@dataclass(frozen=True)
class Latency:
    """Time of one run of a program.

    Args:
        batch: number of images of a run.
        median_seconds: median over the runs.
        low_seconds: 10th percentile over the runs.
        high_seconds: 90th percentile over the runs.
        runs: number of timed runs.
    """

    batch: int
    median_seconds: float
    low_seconds: float
    high_seconds: float
    runs: int

    @property
    def facts(self) -> dict[str, float]:
        """The values by the names of `DEPLOY_FACTS`."""
        prefix = f"deploy/latency_{self.batch}"
        return {
            f"{prefix}_seconds": self.median_seconds,
            f"{prefix}_low_seconds": self.low_seconds,
            f"{prefix}_high_seconds": self.high_seconds,
            f"{prefix}_runs": float(self.runs),
        }


def open_program(content: bytes, *, threads: int) -> Any:
    """Return an ONNX Runtime session of a program on the CPU.

    Args:
        content: content of the ONNX file.
        threads: number of threads of an operator; operators run one after the other.
    """
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])


def as_function(session: Any) -> Callable[[Tensor], Tensor]:
    """Return a program for images as a function that returns logits (N, C)."""
    return lambda images: torch.from_numpy(session.run([OUTPUT], {IMAGES: images.contiguous().numpy()})[0])


def measure_latency(content: bytes, shape: tuple[int, int, int], *, threads: int) -> list[Latency]:
    """Time a program for images, for each batch size of `DEPLOY_BATCHES`.

    Nothing else should run on the machine.

    Args:
        content: content of the ONNX file.
        shape: channels, height and width of an image.
        threads: number of threads.
    """
    session = open_program(content, threads=threads)
    return [_time(session, batch, shape) for batch in DEPLOY_BATCHES]


def _time(session: Any, batch: int, shape: tuple[int, int, int]) -> Latency:
    images = _random_images(batch, shape).numpy()
    for _ in range(WARM_UP_RUNS):
        session.run([OUTPUT], {IMAGES: images})
    seconds: list[float] = []
    end = time.perf_counter() + SECONDS
    while len(seconds) < MOST_RUNS and (len(seconds) < LEAST_RUNS or time.perf_counter() < end):
        began = time.perf_counter()
        session.run([OUTPUT], {IMAGES: images})
        seconds.append(time.perf_counter() - began)
    median, low, high = np.percentile(seconds, _PERCENTILES)
    return Latency(batch, float(median), float(low), float(high), len(seconds))


def measure_student(
    name: str, *, num_classes: int, shape: tuple[int, int, int], threads: int | None
) -> Mapping[str, float]:
    """Measure a student architecture for images, with fresh weights.

    Args:
        name: name of the architecture.
        num_classes: number of classes.
        shape: channels, height and width of an image.
        threads: number of threads of ONNX Runtime; None to count parameters and FLOPs alone, without ONNX.

    Returns:
        The values by the names of `DEPLOY_FACTS`.

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
