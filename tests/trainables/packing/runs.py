"""Runs in float64 on random data, and comparisons of two of them."""

import copy
from dataclasses import replace

import pytest
import torch

from tests.trainables.conftest import TIMED, small_config
from trainables.batches.images import BatchSource
from trainables.data.dataset import Dataset, Split
from trainables.models import build_model
from trainables.process.randomness import seeded
from trainables.run.predictions import SplitPredictor
from trainables.run.run import DistillationRun
from trainables.spec.datasets import DATASETS
from trainables.teacher_outputs.frozen import FrozenTeacher

# Rounding error of sums in another order, in float64. The longest run of the tests has about 60 steps.
EXACT = 1e-12


# All differences allowed between trials of a pack. One trial differs only in the batches.
MIXED = (
    {"adapter_width": 4, "temperature": 1.0, "student_learning_rate": 0.1, "seed": 1, "data_seed": 1, "epochs": 2},
    {
        "adapter_width": 16,
        "temperature": 8.0,
        "kd_weight": 0.3,
        "seed": 2,
        "student_schedule": "step",
        "adapter_schedule": "released",
    },
    {
        "adapter_width": 7,
        "ce_weight": 0.5,
        "adapter_ce_weight": 2.0,
        "adapter_learning_rate": 0.05,
        "data_seed": 3,
        "student_schedule": "one_cycle",
        "adapter_schedule": "one_cycle",
    },
    {"adapter_width": 16, "student_momentum": 0.0, "student_weight_decay": 0.01, "adapter_schedule": "constant"},
)


class DoubleBatches:
    """Batches of a run in float64."""

    def __init__(self, batches):
        self._batches = batches

    def __getattr__(self, name):
        return getattr(self._batches, name)

    def normalise(self, images):
        return self._batches.normalise(images).double()

    def of_epoch(self, epoch, outputs):
        for batch in self._batches.of_epoch(epoch, outputs):
            yield batch._replace(inputs=batch.inputs.double())

    def evaluation(self, split):
        for rows, inputs in self._batches.evaluation(split):
            yield rows, inputs.double()

    def example(self, count):
        return self._batches.example(count).double()


def in_float64(run: DistillationRun) -> DistillationRun:
    """Convert all networks and batches of a run to float64."""
    run.student.double()
    if run.adapter is not None:
        run.adapter.double()
    if run.parts is not None:
        run.parts.double()
    if run.companion is not None:
        run.companion.model.double()
    if run.teacher is not None:
        run.teacher.double()
    return with_batches(run, DoubleBatches(run.batches))


def with_batches(run: DistillationRun, batches: BatchSource) -> DistillationRun:
    """Return the run with these batches for training and evaluation."""
    run.batches = batches
    run.predictor = SplitPredictor(run.student, run.dataset, batches, run.workers)
    return run


def random_dataset(size: int, channels: int, samples: int = 40) -> Dataset:
    """Return random images under a known name, because a config needs one."""
    generator = torch.Generator().manual_seed(0)
    images = torch.randint(256, (samples, channels, size, size), dtype=torch.uint8, generator=generator)
    split = Split(images, torch.randint(10, (samples,), generator=generator), torch.arange(samples))
    info = replace(DATASETS["digits"], channels=channels, image_size=size)
    return Dataset(info, train=split, validation=split, read_test=lambda: split, seed=0, digest="random")


def random_teacher(dataset: Dataset, architecture: str = "cnn_8_16") -> FrozenTeacher:
    with seeded(7):
        model = build_model(architecture, num_classes=dataset.num_classes, in_channels=dataset.info.channels)
    return FrozenTeacher(model)


def make_runs(dataset: Dataset, teacher: FrozenTeacher, changes=MIXED, **common) -> dict[str, DistillationRun]:
    """Return a run in float64 for each set of changes, by number."""
    teacher = copy.deepcopy(teacher).float()  # which other runs may have in float64, unlike the images
    configs = [small_config(**{"epochs": 4} | common | each) for each in changes]
    runs = [DistillationRun(config, dataset, teacher) for config in configs]
    return {str(k): in_float64(run) for k, run in enumerate(runs)}


def assert_same_state(packed: DistillationRun, alone: DistillationRun, tolerance: float = EXACT) -> None:
    """Assert that both runs have equal epochs, identities and tensors."""
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
