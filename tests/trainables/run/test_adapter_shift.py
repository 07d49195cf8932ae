"""Shift of the adapter during training, as reported by a trial."""

import copy

import pytest
import torch

from tests.trainables.conftest import small_config
from trainables.costs.epoch import run_epoch
from trainables.run.run import DistillationRun

SHIFT = "train/adapter_shift"


@pytest.mark.parametrize("changes", [{}, {"adapter_init": "default", "method": "dkd", "adapter": True}], ids=str)
def test_the_shift_is_the_mean_change_of_sharpness_since_the_initial_weights(changes, digits, teacher):
    config = small_config(**changes, adapter_learning_rate=0.05, seed=3)
    run = DistillationRun(config, digits, teacher)
    initial = copy.deepcopy(run.adapter).eval()
    assert run.evaluate()[SHIFT] == 0.0
    run.train_epoch()
    measures = run.evaluate()
    with torch.no_grad():
        outputs = run.predictor.of_frozen_teacher(run.teacher_outputs)
        before, after = (
            net(outputs.feature, outputs.logits).double().exp().sum(dim=1).log() for net in (initial, run.adapter)
        )
    assert measures[SHIFT] == pytest.approx(float((after - before).abs().mean()), rel=1e-9)
    assert measures[SHIFT] > 0.05
    # The shift excludes the change made by the random init.
    at_first = float((before - outputs.logits.double().exp().sum(dim=1).log()).abs().mean())
    assert (at_first > 0.005) == (config.adapter_init == "default")

    resumed = DistillationRun(config, digits, teacher)
    resumed.load_state_dict(run.state_dict())
    assert resumed.evaluate()[SHIFT] == measures[SHIFT]


def test_a_trial_without_an_adapter_reports_none(digits, teacher):
    assert SHIFT not in run_epoch(DistillationRun(small_config(method="kd"), digits, teacher))


def test_an_adapter_at_the_old_published_rate_stays_where_it_began_and_the_released_schedule_moves_it(digits, teacher):
    shifts = []
    for schedule in ("cosine", "released"):
        config = small_config(adapter_init="default", adapter_learning_rate=2e-5, adapter_schedule=schedule)
        run = DistillationRun(config, digits, teacher)
        while not run.finished:
            measures = run_epoch(run)
        shifts.append(measures[SHIFT])
    assert shifts[0] < 0.01 < shifts[1]
