import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from trainables.checkpoint import load_checkpoint, save_checkpoint
from trainables.data.dataset import Dataset, Split
from trainables.data.registry import DatasetInfo
from trainables.data.views import batch_order
from trainables.loss_log import NonFiniteLossError
from trainables.models import build_model
from trainables.packing import Pack, PackingError
from trainables.randomness import seeded
from trainables.teacher import FrozenTeacher
from trainables.teacher_outputs_store import StoredTeacherOutputs
from trainables.training import DistillationRun
from trainables.trial import TrialConfig

from .conftest import small_config

# Of a sum's order in float64; the tests' longest run is some 60 steps.
EXACT = 1e-12
TIMED = ("cost/seconds", "cost/examples_per_second", "cost/peak_memory_bytes", "cost/teacher_forwards")
# Everything that trials of a pack may differ in, and one that differs in nothing but its batches.
MIXED = (
    {"adapter_width": 4, "temperature": 1.0, "student_learning_rate": 0.1, "seed": 1, "data_seed": 1, "epochs": 2},
    {"adapter_width": 16, "temperature": 8.0, "kd_weight": 0.3, "seed": 2, "student_schedule": "step"},
    {"adapter_width": 7, "ce_weight": 0.5, "adapter_ce_weight": 2.0, "adapter_learning_rate": 0.05, "data_seed": 3},
    {"adapter_width": 16, "student_momentum": 0.0, "student_weight_decay": 0.01, "adapter_schedule": "constant"},
)

Images = Callable[[Tensor], Tensor]


class DoubleBatches:
    """A run's batches in float64."""

    def __init__(self, batches):
        self._batches = batches
        self.order = batches.order

    def normalise(self, images):
        return self._batches.normalise(images).double()

    def of_epoch(self, epoch, outputs):
        for batch in self._batches.of_epoch(epoch, outputs):
            yield batch._replace(images=batch.images.double())


def in_float64(run: DistillationRun) -> DistillationRun:
    run.student.double()
    if run.adapter is not None:
        run.adapter.double()
    if run.teacher is not None:
        run.teacher.double()
    run.batches = DoubleBatches(run.batches)
    return run


def random_dataset(size: int, channels: int, samples: int = 40) -> Dataset:
    """Random images under a known name, since a config asks for one."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (samples, channels, size, size), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.randint(10, (samples,), generator=generator), torch.arange(samples))
    info = DatasetInfo("digits", 10, channels, size, (samples, samples, samples), 9, (), "random")
    return Dataset(info, train=split, validation=split, read_test=lambda: split, seed=0, digest="random")


def random_teacher(dataset: Dataset, architecture: str = "cnn_8_16") -> FrozenTeacher:
    with seeded(7):
        model = build_model(architecture, num_classes=dataset.num_classes, in_channels=dataset.info.channels)
    return FrozenTeacher(model)


def make_runs(dataset: Dataset, teacher: FrozenTeacher, changes=MIXED, **common) -> dict[str, DistillationRun]:
    return {
        str(k): in_float64(DistillationRun(small_config(**{"epochs": 4} | common | each), dataset, teacher))
        for k, each in enumerate(changes)
    }


def assert_same_state(packed: DistillationRun, alone: DistillationRun, tolerance: float = EXACT) -> None:
    ours, theirs = packed.state_dict(), alone.state_dict()
    assert ours["epoch"] == theirs["epoch"]
    assert ours["identity"] == theirs["identity"]
    assert set(ours["tensors"]) == set(theirs["tensors"])
    for name, tensor in ours["tensors"].items():
        torch.testing.assert_close(tensor, theirs["tensors"][name], rtol=0, atol=tolerance, msg=lambda m, n=name: n + m)


def assert_same_measures(ours: dict[str, float], theirs: dict[str, float], tolerance: float = 1e-11) -> None:
    assert set(ours) == set(theirs)
    for name in set(ours) - set(TIMED):
        assert ours[name] == pytest.approx(theirs[name], abs=tolerance), name


@pytest.mark.parametrize(
    ("student", "size", "channels", "batch"),
    [("cnn_3_4", 8, 1, 128), ("cnn_8_16", 28, 1, 16), ("resnet8", 32, 3, 16), ("wrn_16_1", 32, 3, 20),
     ("vgg8", 32, 3, 20), ("MobileNetV2", 32, 3, 20)],
)  # fmt: skip
def test_packed_trials_are_what_they_are_alone(student, size, channels, batch, digits, teacher):
    dataset = digits if size == 8 else random_dataset(size, channels)
    teacher = teacher if size == 8 else random_teacher(dataset)
    slow = student in ("wrn_16_1", "vgg8", "MobileNetV2")
    changes = [each | {"epochs": 2} for each in MIXED[:2]] if slow else MIXED
    packed = Pack(make_runs(dataset, teacher, changes, student=student, batch_size=batch))
    alone = make_runs(dataset, teacher, changes, student=student, batch_size=batch)
    assert min(run.config.epochs for run in alone.values()) == 2
    assert len({run.config.epochs for run in alone.values()}) == (1 if slow else 2)
    for epoch in range(2 if slow else 4):
        together = packed.run_epoch()
        assert together.failures == {}
        expected = {name for name, run in alone.items() if epoch < run.config.epochs}
        assert set(together.measures) == expected
        for name in expected:
            assert_same_measures(together.measures[name], alone[name].run_epoch())
    for name, run in alone.items():
        assert run.finished
        assert_same_state(packed.run_of(name), run)
