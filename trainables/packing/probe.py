"""Measurement: how many trials should be packed on this machine; takes a few seconds at most."""

import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Final, NamedTuple

import torch
from torch import Tensor

from trainables.data.dataset import Dataset, Split
from trainables.packing.network import PackingError
from trainables.packing.pack import Pack
from trainables.run.run import DistillationRun
from trainables.spec.modality import is_text
from trainables.spec.trial import TrialConfig
from trainables.teacher_outputs.batch import TeacherBatch
from trainables.teacher_outputs.live import LiveTeacherOutputs
from trainables.user_code.reference import is_canonical

if TYPE_CHECKING:
    from trainables.teacher_outputs.frozen import FrozenTeacher

COUNTS: Final = (2, 4, 8)
# A smaller gain is within the variation between two measurements.
LEAST_GAIN: Final = 1.1
_BATCHES: Final = 8
_SECONDS: Final = 0.4


class Probe(NamedTuple):
    """Measurement result.

    Args:
        packed: best K; 1 if packing gives no speed-up.
        gains: speed-up for each K tried: steps per second over all trials, relative to a single unpacked trial.
    """

    packed: int
    gains: dict[int, float]


def best_count(
    config: TrialConfig,
    dataset: Dataset,
    teacher: "FrozenTeacher | None",
    *,
    stored: bool,
    counts: Sequence[int] = COUNTS,
) -> Probe:
    """Return the K with the most steps per second for trials like this one, on the threads of this process.

    Larger K are tried until the speed-up stops growing.

    Args:
        config: trial config; the seed does not matter.
        dataset: trial dataset; a few batches are used.
        teacher: the trial's teacher.
        stored: whether teacher outputs will be looked up rather than computed.
        counts: K values to try, in order.
    """
    if is_text(config.dataset) or not config.has_plain_steps or is_canonical(config.student):
        return Probe(1, {})
    few = _few_batches(dataset, config.batch_size)
    outputs = None
    if stored and teacher is not None and not config.method_spec.needs_maps:
        outputs = _KeptOutputs(teacher, few, config)
    trials = [config.model_copy(update={"seed": k, "epochs": 100_000}) for k in range(max(counts))]
    alone = DistillationRun(trials[0], few, teacher, teacher_outputs=outputs)
    rate = _rate(alone.train_epoch)
    gains: dict[int, float] = {}
    best = Probe(1, gains)
    for count in counts:
        given = [outputs] * count if outputs is not None else None
        try:
            pack = Pack.of_configs(trials[:count], few, teacher, teacher_outputs=given)
        except PackingError:
            break
        gains[count] = count * _rate(pack.train_epoch) / rate
        if gains[count] < max(LEAST_GAIN, gains.get(best.packed, 0.0)):
            break
        best = Probe(count, gains)
    return best


def _rate(epoch: Callable[[], object]) -> float:
    """Return epochs per second of this process's CPU time, without the first epoch."""
    epoch()
    began, done = time.process_time(), 0
    while (seconds := time.process_time() - began) < _SECONDS or not done:
        epoch()
        done += 1
    return done / seconds


def _few_batches(dataset: Dataset, batch_size: int) -> Dataset:
    whole = dataset.train
    count = min(_BATCHES * batch_size, len(whole))
    source = whole.source[whole.indices[:count]]
    train = Split(source, whole.labels[:count], torch.arange(count), image_size=whole.image_size)
    return Dataset(
        dataset.info, train=train, validation=train, read_test=lambda: train, seed=dataset.seed, digest=dataset.digest
    )  # fmt: skip


class _KeptOutputs:
    """Teacher outputs of unaugmented images, kept in memory. Views are ignored, as they do not affect the time."""

    stored = True

    def __init__(self, teacher: "FrozenTeacher", dataset: Dataset, config: TrialConfig) -> None:
        live = LiveTeacherOutputs(teacher)
        run = DistillationRun(config, dataset, teacher)
        batches = [live.validation(torch.empty(0), images) for images in run.evaluation_batches(dataset.train)]
        self._all = TeacherBatch.joined(batches)
        self.numbers_per_sample = live.numbers_per_sample
        self.source = self
        self.forwards = 0

    def stored_bytes(self, slots: int) -> int:  # noqa: ARG002
        """Return 0, because the outputs are kept in memory."""
        return 0

    def train_batch(self, indices: Tensor, slot: int, images: Tensor) -> TeacherBatch:  # noqa: ARG002
        """Return a batch's rows."""
        return TeacherBatch(self._all.feature[indices], self._all.logits[indices])

    def validation(self, indices: Tensor, images: Tensor) -> TeacherBatch:
        """Return a validation batch's rows."""
        return self.train_batch(indices, 0, images)
