"""`--gpus-per-trial auto` on a real Ray cluster. Ray allocates GPUs by number, so the nodes need none."""

import os
import time
from collections import Counter
from collections.abc import Iterator

import pytest
import ray
from ray import tune
from ray.cluster_utils import Cluster

from study.cli.progress import StudyProgress
from study.running import gpus_on_ray
from study.running.cluster import start_ray, stop_ray
from study.running.on_ray import RayExecutor
from study.running.resources import Packing
from study.running.start import Start
from study.running.stop import Stop
from tests.study.factories import make_plan
from tests.study.running.gpus import PretendedGpu
from trainables.process.errors import StudyError

pytestmark = pytest.mark.slow


class Meeting:
    def __init__(self):
        self.met = 0

    def enter(self):
        self.met += 1

    def count(self):
        return self.met


class Waiting(tune.Trainable):
    """Trial that ends once all four have started, and reports the GPU that it was given."""

    def setup(self, config):
        self.meeting = ray.get_actor("meeting")
        ray.get(self.meeting.enter.remote())

    def step(self):
        while ray.get(self.meeting.count.remote()) < 4:
            time.sleep(0.1)
        return {"devices": os.environ["CUDA_VISIBLE_DEVICES"], "done": True}


class WaitingPacking(Packing):
    def _trainable(self):
        return Waiting


@pytest.fixture(scope="module")
def two_gpus() -> Iterator[Cluster]:
    """Cluster of one node with four cores and two simulated GPUs."""
    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=4, num_gpus=2, include_dashboard=False)
        start_ray(cluster.address)
        yield cluster
    finally:
        stop_ray()
        cluster.shutdown()


def executor_of(plan):
    stop = Stop(None)
    stop.start = Start()
    return RayExecutor(plan, StudyProgress(plan, quiet=True), stop)


@pytest.mark.usefixtures("two_gpus")
def test_two_trials_share_each_gpu_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus_on_ray, "READ_GPU", PretendedGpu)
    executor = executor_of(make_plan(tmp_path, gpus_per_trial="auto"))
    choice = executor.choose_gpus()
    assert (choice.per_trial, choice.gpus) == (0.5, 2)
    assert "limited by cores for 2. Measured on Pretended GPU, 16.00GiB: cnn_3_4 with pesf_kd" in choice.words
    meeting = ray.remote(Meeting).options(name="meeting", num_cpus=0).remote()
    packing = WaitingPacking(executor._plan, {}, StudyProgress(executor._plan, quiet=True))
    assert packing.slots() == 4
    results = tune.Tuner(
        packing.trainable,
        tune_config=tune.TuneConfig(num_samples=4),
        run_config=tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0),
    ).fit()
    assert Counter(result.metrics["devices"] for result in results) == {"0": 2, "1": 2}
    ray.kill(meeting)


@pytest.mark.usefixtures("two_gpus")
def test_a_build_of_pytorch_without_gpus_is_refused(tmp_path):
    with pytest.raises(StudyError, match=r"has 2 GPUs, but PyTorch .* finds no GPU there: install a build of PyTorch"):
        executor_of(make_plan(tmp_path, gpus_per_trial="auto")).choose_gpus()


@pytest.mark.usefixtures("two_gpus")
def test_gpus_that_others_hold_are_not_waited_for(tmp_path, monkeypatch):
    monkeypatch.setattr(gpus_on_ray, "READ_GPU", PretendedGpu)
    monkeypatch.setattr(gpus_on_ray, "_SECONDS_TO_MEASURE", 2.0)
    held = ray.remote(Meeting).options(num_gpus=2, num_cpus=0).remote()
    ray.get(held.count.remote())
    choice = executor_of(make_plan(tmp_path, gpus_per_trial="auto")).choose_gpus()
    assert choice.per_trial == 1
    assert "one trial on each: no GPU was free, or the measurement took longer than 2 s" in choice.words
    ray.kill(held)


@pytest.mark.usefixtures("two_gpus")
def test_workers_have_a_gpu_each_and_too_few_gpus_or_cores_are_refused(tmp_path):
    plan = make_plan(tmp_path, gpus_per_trial="auto", workers_per_trial=2)
    assert executor_of(plan).choose_gpus().per_trial == 1
    with pytest.raises(StudyError, match="3 workers with a GPU each, and the nodes have 2 GPUs"):
        executor_of(plan.model_copy(update={"workers_per_trial": 3})).choose_gpus()
    with pytest.raises(StudyError, match="needs 5 cores, and the nodes with GPUs have at most 4"):
        executor_of(make_plan(tmp_path, gpus_per_trial="auto", cpus_per_trial=5)).choose_gpus()
    idle = executor_of(make_plan(tmp_path)).choose_gpus()
    assert (idle.per_trial, idle.idle, idle.words) == (0, 2, "2 GPUs are idle: --gpus-per-trial auto uses them")
