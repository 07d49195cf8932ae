"""What students cost where they run, compared with counts by hand and with the exported file."""

import numpy as np
import onnxruntime
import pytest
import torch

from trainables.models import build_model
from trainables.spec.measures import DEPLOY_FACTS, DEPLOY_FLOPS, DEPLOY_PARAMETERS, DEPLOY_SIZE, unit_of
from trainables.students import deployment
from trainables.students.deployment import ROUNDS, RUNS_OF_A_ROUND, measure_latency, measure_student

pytestmark = pytest.mark.unit
SHAPE = (1, 8, 8)


@pytest.fixture(scope="module")
def small():
    return measure_student("cnn_3_4", num_classes=10, shape=SHAPE, threads=1)


def test_parameters_and_flops_are_those_counted_by_hand():
    facts = measure_student("cnn_3_4", num_classes=10, shape=SHAPE, threads=None)
    model = build_model("cnn_3_4", num_classes=10, in_channels=1)
    sizes = [each for each in model.modules() if isinstance(each, torch.nn.Conv2d | torch.nn.Linear)]
    outputs = []
    for each in sizes:
        each.register_forward_hook(lambda module, _, out: outputs.append((module, out[0].numel())))
    model.eval()(torch.zeros(1, *SHAPE))
    products = sum(
        2 * count * (each.weight[0].numel() if isinstance(each, torch.nn.Conv2d) else each.in_features)
        for each, count in outputs
    )
    assert facts == {DEPLOY_PARAMETERS: sum(p.numel() for p in model.parameters()), DEPLOY_FLOPS: products}


def test_a_measured_student_has_every_fact_with_a_unit(small):
    assert set(small) == set(DEPLOY_FACTS)
    assert {unit_of(name) for name in DEPLOY_FACTS} == {"s", "B", "FLOP/example", "numbers", "runs", "threads"}
    assert np.isfinite(list(small.values())).all()
    assert min(small.values()) > 0
    for batch in (1, 32):
        low, median, high = (small[f"deploy/latency_{batch}_{part}seconds"] for part in ("low_", "", "high_"))
        assert low <= median <= high
        assert small[f"deploy/latency_{batch}_runs"] >= ROUNDS * RUNS_OF_A_ROUND


def test_the_weights_change_neither_size_nor_counts(small):
    again = measure_student("cnn_3_4", num_classes=10, shape=SHAPE, threads=1)
    for name in (DEPLOY_SIZE, DEPLOY_FLOPS, DEPLOY_PARAMETERS):
        assert again[name] == small[name]


def test_more_work_takes_more_time_and_room(small):
    larger = measure_student("cnn_64_128", num_classes=10, shape=SHAPE, threads=1)
    assert larger["deploy/latency_32_seconds"] > 3 * small["deploy/latency_32_seconds"]
    assert larger[DEPLOY_SIZE] > 4 * larger[DEPLOY_PARAMETERS] > 4 * small[DEPLOY_PARAMETERS]


class PretendedSession:
    """Session whose runs take given times, after the warm-up, on a clock that only they move."""

    def __init__(self, seconds: dict[int, list[float]]):
        self.now, self.order, self._warm_up = 0.0, [], deployment.WARM_UP_RUNS * len(seconds)
        self._seconds = {batch: iter(each) for batch, each in seconds.items()}

    def run(self, _, images):
        if self._warm_up:
            self._warm_up -= 1
        else:
            (batch,) = {each.shape[0] for each in images.values()}
            self.order.append(batch)
            self.now += next(self._seconds[batch])


@pytest.fixture
def pretended(monkeypatch):
    def pretend(seconds):
        session = PretendedSession(seconds)
        monkeypatch.setattr(deployment, "open_program", lambda *_, **__: session)
        monkeypatch.setattr(deployment.time, "perf_counter", lambda: session.now)
        monkeypatch.setattr(deployment, "DEPLOY_BATCHES", tuple(seconds))
        return session

    return pretend


def test_the_median_of_many_runs_ignores_a_few_slow_ones(pretended, monkeypatch):
    pretended({1: [*[0.5] * 4, *[0.001] * 20, *[0.002] * 76]})
    monkeypatch.setattr(deployment, "ROUNDS", 1)
    monkeypatch.setattr(deployment, "SECONDS_OF_A_ROUND", 2.171)  # the last run begins at 2.17 s
    (found,) = measure_latency(b"", SHAPE, threads=1)
    assert found.runs == 100
    assert (found.low_seconds, found.median_seconds, found.high_seconds) == pytest.approx((0.001, 0.002, 0.002))


def test_a_machine_that_is_slow_for_half_of_the_rounds_changes_the_percentiles_alone(pretended, monkeypatch):
    monkeypatch.setattr(deployment, "SECONDS_OF_A_ROUND", 0.0)  # three runs a round
    quiet, slow = [0.010, 0.011, 0.012], [0.020, 0.021, 0.022]
    pretended({1: [*slow * 2, *quiet * 5, *slow * 3]})
    (found,) = measure_latency(b"", SHAPE, threads=1)
    assert (found.median_seconds, found.runs) == (pytest.approx(0.011), 30)
    assert (found.low_seconds, found.high_seconds) == pytest.approx((0.010, 0.022))


def test_batch_sizes_alternate_so_that_a_slow_moment_meets_both(pretended):
    # Runs of 0.08 s end a round of 0.1 s after two, and of 0.5 s after the least number.
    session = pretended({1: [0.08] * 1000, 32: [0.5] * 1000})
    one, many = measure_latency(b"", SHAPE, threads=1)
    assert session.order == [*[1] * RUNS_OF_A_ROUND, *[32] * RUNS_OF_A_ROUND] * ROUNDS
    assert (one.batch, one.runs, many.batch, many.runs) == (1, 30, 32, 30)


def test_the_stated_number_of_threads_is_the_one_in_use(monkeypatch):
    seen = []

    class Session:
        def __init__(self, content, options, providers):
            seen.append((options.intra_op_num_threads, options.inter_op_num_threads, providers))

    monkeypatch.setattr(onnxruntime, "InferenceSession", Session)
    deployment.open_program(b"", threads=3)
    assert seen == [(3, 1, ["CPUExecutionProvider"])]
