"""Simulated searches with a planted optimum: how much a right or a wrong belief changes."""

import math
from pathlib import Path

import numpy as np
import optuna
import pytest

from study.plan.beliefs import read_beliefs
from study.plan.bounds import read_bounds
from study.search.proposals import proposed_point
from study.search.samplers import make_sampler
from tests.study.factories import make_plan

pytestmark = pytest.mark.slow
BOUNDS = [bounds.__dict__ for bounds in read_bounds(["adapter_width=2:64:log", "ce_weight=0:1"])]
PAGE = (Path(__file__).parents[3] / "docs" / "how_to" / "guide_search.md").read_text(encoding="utf-8")


def regrets(folder, prior, seed, trials):
    """Return the regret of the best trial so far, after each trial of a search with a planted optimum."""
    plan = make_plan(folder, space="none", search=BOUNDS, trials=trials, prior=read_beliefs(prior))
    (search,) = plan.searches
    study, noise = optuna.create_study(direction="maximize"), np.random.default_rng(seed)
    found = []
    for number in range(trials):
        study.sampler = make_sampler("tpe", study_seed=seed, number=number)
        if point := proposed_point(plan, search, number, seed):
            study.enqueue_trial(point)
        trial = study.ask()
        config = search.suggest(trial)
        found.append(abs(math.log(config["adapter_width"] / 8)) + 0.5 * abs(config["ce_weight"] - 0.3))
        study.tell(trial, noise.normal(scale=0.01) - found[-1])
    return np.minimum.accumulate(found)


def test_a_right_belief_saves_trials_a_wrong_one_costs_few_and_the_page_has_the_numbers(tmp_path):
    """Over 24 simulated searches of 30 trials, the wrong belief being the worst: both fields at the far end."""
    beliefs = {"none": [], "right": ["adapter_width=8"], "wrong": ["adapter_width=64:1.1", "ce_weight=1:0.05"]}
    none, right, wrong = (
        np.mean([regrets(tmp_path, prior, seed, 30) for seed in range(24)], axis=0) for prior in beliefs.values()
    )
    assert right[1] < 0.3 * none[1]
    assert right[9] < none[9]
    # With the wrong belief, a search of n trials is on average better than one of 2n/3 trials without a belief.
    assert wrong[4] > none[4]
    later = np.arange(12, 30)
    assert np.mean(wrong[later]) < np.mean(none[later * 2 // 3])
    assert wrong[-1] < 0.05 * wrong[0]
    for name, mean in (("none", none), ("right", right), ("wrong: the far end of both ranges", wrong)):
        row = " | ".join([name, *(f"{mean[trials - 1]:.2f}" for trials in (2, 10, 20, 30))])
        assert f"| {row} |" in PAGE
