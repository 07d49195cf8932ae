"""Searches guided by beliefs: the first proposal, resuming, and how much a right or a wrong belief changes."""

import math

import numpy as np
import pytest

from study.ledger.ledger import StudyLedger
from study.plan.beliefs import influence, read_beliefs
from study.plan.bounds import read_bounds
from study.search.proposals import proposed_point
from study.search.searcher import StudySearch
from tests.study.factories import PretendedTune, compare, make_plan

pytestmark = pytest.mark.unit
BOUNDS = [bounds.__dict__ for bounds in read_bounds(["adapter_width=2:64:log", "ce_weight=0:1"])]


def begin(folder, **values):
    """Return a driver of a search, which continues if the study has begun."""
    ledger = StudyLedger(make_plan(folder, **{"space": "none", "search": BOUNDS, **values}))
    return PretendedTune(StudySearch(ledger, {}), ledger)


@pytest.mark.parametrize("sampler", ["tpe", "random", "qmc", "cmaes", "nsga2"])
def test_the_belief_is_proposed_first_by_samplers_and_a_resumed_search_goes_on_alike(sampler, tmp_path):
    values = {"sampler": sampler, "trials": 16, "prior": read_beliefs(["adapter_width=16:1.2"])}
    whole = [trial["config"] for trial in begin(tmp_path / "whole", **values).run(14)]
    assert whole[0]["adapter_width"] == 16
    near = [abs(math.log(config["adapter_width"] / 16)) < 0.5 for config in whole]
    assert 2 <= sum(near) < 14
    parts = [trial["config"] for count in (6, 7, 1) for trial in begin(tmp_path / "parts", **values).run(count)]
    assert parts == whole


def test_a_search_of_a_method_begins_with_published_settings_then_with_the_belief(tmp_path):
    plan = compare(tmp_path, space="method_tuned", methods=["kd", "at"], prior=read_beliefs(["temperature=5"]))
    kd, at = plan.searches
    assert proposed_point(plan, kd, 0, 0) == kd.first
    assert proposed_point(plan, kd, 1, 0) == {"temperature": 5.0}
    assert proposed_point(plan, at, 0, 0) == at.first
    assert [proposed_point(plan, at, number, 0) for number in range(1, 9)] == [None] * 8  # `at` has no temperature
    same = plan.model_copy(update={"prior": read_beliefs([f"temperature={kd.first['temperature']}"])})
    assert proposed_point(same, kd, 1, 0) != {"temperature": kd.first["temperature"]}


def test_as_many_proposals_are_drawn_as_the_influence_says(tmp_path):
    plan = make_plan(tmp_path, space="none", search=BOUNDS, trials=40, prior=read_beliefs(["ce_weight=0.3"]))
    (search,) = plan.searches
    expected = sum(influence(40, number) for number in range(40))
    found = [sum(proposed_point(plan, search, n, seed) is not None for n in range(40)) for seed in range(100)]
    assert np.mean(found) == pytest.approx(expected, abs=0.5)  # standard error 0.2
    assert np.std(found) > 1
