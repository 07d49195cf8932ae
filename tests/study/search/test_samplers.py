"""Results passed to a sampler, and the plan's statements about samplers."""

from typing import get_args

import optuna
import pytest
from optuna.trial import TrialState

from search_spaces import SPACES
from study.cli.preview import describe_plan
from study.plan.plan import Sampler
from study.search.samplers import make_sampler, sampler_outcome
from tests.study.factories import make_plan


@pytest.mark.conformance
@pytest.mark.parametrize("sampler", get_args(Sampler))
def test_samplers_get_a_stopped_trial_as_they_learn_from_it(sampler):
    learns = sampler in ("gp", "cmaes", "nsga2")
    state = TrialState.COMPLETE if learns else TrialState.PRUNED
    assert sampler_outcome(sampler, "pruned", {1: 0.5, 3: 0.25}) == (state, 0.25)
    assert sampler_outcome(sampler, "finished", {1: 0.5, 3: 0.25}) == (TrialState.COMPLETE, 0.25)
    assert sampler_outcome(sampler, "failed", {1: 0.5}) == (TrialState.FAIL, None)
    assert sampler_outcome(sampler, "pruned", {}) == (TrialState.PRUNED, None)
    assert sampler_outcome(sampler, "finished", {}) == (TrialState.FAIL, None)


@pytest.mark.parametrize("space", [name for name in SPACES if name != "gap_target"])
def test_the_plan_names_the_parameters_that_cmaes_draws_at_random(tmp_path, space):
    drawn = [each.name for each in SPACES[space].parameters if each.role != "fixed" and each.kind == "categorical"]
    shown = describe_plan(make_plan(tmp_path, space=space, sampler="cmaes"), [])
    warning = f"draws categorical parameters at random, without learning from results: {', '.join(drawn)}."
    assert (warning in shown) == bool(drawn)
    assert "at random" not in describe_plan(make_plan(tmp_path, space=space, sampler="gp"), [])


def test_the_plan_says_how_a_sampler_learns_from_stopped_trials(tmp_path):
    shown = {name: describe_plan(make_plan(tmp_path, sampler=name, scheduler="asha"), []) for name in get_args(Sampler)}
    assert [
        name for name in get_args(Sampler) if f"for a trial stopped by asha, {name} uses the value" in shown[name]
    ] == [
        "gp",
        "cmaes",
        "nsga2",
    ]


@pytest.mark.parametrize("sampler", ["tpe", "gp"])
@pytest.mark.parametrize("failing", [False, True])
def test_the_same_suggestions_come_from_a_model_whether_trials_failed_or_not(sampler, failing, monkeypatch):
    """Suggestions by the model are counted: with failures too, all suggestions after the first ten."""
    study, modelled = optuna.create_study(), []
    name = "_sample" if sampler == "tpe" else "_optimize_acqf"
    kind = optuna.samplers.TPESampler if sampler == "tpe" else optuna.samplers.GPSampler
    real = getattr(kind, name)

    def counted(self, *arguments, **named):
        modelled.append(number)
        return real(self, *arguments, **named)

    for number in range(13):
        study.sampler = make_sampler(sampler, study_seed=0, number=number)
        with monkeypatch.context() as patched:
            patched.setattr(kind, name, counted)
            trial = study.ask()
            value = trial.suggest_float("x", 0.0, 1.0)
            trial.suggest_float("y", 0.0, 1.0)
        failed = failing and number % 3 == 1
        study.tell(trial, None if failed else value, state=TrialState.FAIL if failed else TrialState.COMPLETE)
    assert set(modelled) == {10, 11, 12}
