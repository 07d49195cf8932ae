"""Bounds given by the user, in every space."""

import optuna
import pytest
from optuna.trial import FixedTrial

from search_spaces import COMPARISONS, OWN, SPACES, Bounds, find_space, with_bounds
from search_spaces.space import Parameter
from trainables.spec.searchable import is_nuisance
from trainables.spec.trial import TrialConfig

TEMPERATURE = Bounds(field="temperature", kind="float", low=2.0, high=64.0, log=True)
RATE = Bounds(field="student_learning_rate", kind="float", low=0.01, high=0.5, log=True)
KIND = Bounds(field="adapter_kind", kind="categorical", choices=("logit", "parallel"))
BATCH = Bounds(field="batch_size", kind="int", low=16, high=128, step=16)
VALUES = TrialConfig().model_dump()


def bounded(space, *bounds):
    return with_bounds(find_space(space), bounds, VALUES, is_nuisance)


@pytest.mark.parametrize("name", [*SPACES, OWN.name])
def test_bounds_replace_those_of_a_space_or_join_them_and_change_nothing_else(name):
    before, after = find_space(name), bounded(name, TEMPERATURE, RATE, KIND, BATCH)
    given = {"temperature", "student_learning_rate", "adapter_kind", "batch_size"}
    assert set(after.varied) == {*before.varied} | given
    own = {each.name: each for each in after.parameters}
    assert (own["temperature"].low, own["temperature"].high, own["temperature"].log) == (2.0, 64.0, True)
    assert own["adapter_kind"].choices == ("logit", "parallel")
    for each in before.parameters:
        if each.name not in given:
            assert own[each.name] == each
        elif each.role != "fixed":
            assert own[each.name].role == each.role
    assert set(after.scientific) >= {"temperature", "adapter_kind", "batch_size"}
    start = after.default_point()
    assert TrialConfig(**start).model_dump() == {**VALUES, **start}
    assert after.suggest(FixedTrial(start)) == start


def test_a_start_value_outside_the_bounds_becomes_the_nearest_one_inside():
    assert TEMPERATURE.start(4.0) == 4.0
    assert TEMPERATURE.start(1.0) == 2.0
    assert TEMPERATURE.start(100.0) == 64.0
    assert KIND.start("serial") == "logit"
    assert KIND.start("parallel") == "parallel"
    assert (BATCH.start(64), BATCH.start(60), BATCH.start(1000), BATCH.start(1)) == (64, 64, 128, 16)
    third = Bounds(field="ce_weight", kind="float", low=0.1, high=1.0, step=0.3)
    assert [third.start(value) for value in (0.0, 0.5, 0.6, 5.0)] == [0.1, 0.4, 0.7, 1.0]
    assert Bounds(field="adapter_clip", kind="categorical", choices=(True, False)).start(False) is False


def test_a_field_that_only_controls_training_is_scientific_if_nothing_else_is_asked():
    assert bounded("none", RATE).scientific == ("student_learning_rate",)
    assert bounded("none", RATE, TEMPERATURE).scientific == ("temperature",)
    assert bounded("adapter_width", RATE).scientific == ("adapter_width",)


def test_the_question_of_a_space_without_fields_of_its_own_names_the_fields():
    assert OWN.varied == ()
    assert bounded("none", TEMPERATURE).question == "Which values of temperature make the best student?"
    assert bounded("none", TEMPERATURE, KIND, BATCH).question == (
        "Which values of temperature, adapter_kind and batch_size make the best student?"
    )
    assert bounded("joint", TEMPERATURE).question == SPACES["joint"].question


@pytest.mark.parametrize("sampler", [optuna.samplers.TPESampler, optuna.samplers.RandomSampler])
def test_every_suggestion_is_within_the_bounds_and_on_the_steps(sampler):
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    space = bounded(
        "none", TEMPERATURE, KIND, BATCH, Bounds(field="ce_weight", kind="float", low=0.0, high=1.0, step=0.25)
    )
    study = optuna.create_study(sampler=sampler(seed=0))
    seen = set()
    for number in range(60):
        trial = study.ask()
        values = space.suggest(trial)
        assert tuple(trial.params) == space.varied
        assert 2.0 <= values["temperature"] <= 64.0
        assert values["ce_weight"] in (0.0, 0.25, 0.5, 0.75, 1.0)
        assert values["batch_size"] in range(16, 129, 16)
        assert type(values["batch_size"]) is int
        seen |= {("kind", values["adapter_kind"]), ("batch", values["batch_size"])}
        study.tell(trial, float(number % 5))
    assert {("kind", "logit"), ("kind", "parallel"), ("batch", 16), ("batch", 128)} <= seen


def test_a_comparison_tunes_within_the_bounds_and_never_beyond_them():
    comparison = COMPARISONS["method_tuned"].with_bounds([TEMPERATURE, BATCH])
    published = {**VALUES, "temperature": 1.0, "kd_weight": 900.0}
    own = {each.name: each for each in comparison.parameters_for(published, {"temperature", "kd_weight", "batch_size"})}
    assert (own["temperature"].low, own["temperature"].value) == (2.0, 2.0)
    assert own["kd_weight"].high == 900.0  # its own bounds reach the published value
    assert (own["batch_size"].step, own["batch_size"].role) == (16, "nuisance")
    assert "batch_size" not in {
        each.name for each in comparison.parameters_for(published, {"temperature", "kd_weight"})
    }


@pytest.mark.parametrize(
    "values",
    [
        {"kind": "float", "low": 1.0},
        {"kind": "float", "low": 2.0, "high": 1.0},
        {"kind": "float", "low": 1.0, "high": 1.0},
        {"kind": "float", "low": 0.0, "high": 1.0, "log": True},
        {"kind": "float", "low": 1, "high": 2},
        {"kind": "float", "low": 0.0, "high": float("inf")},
        {"kind": "float", "low": 0.0, "high": 1.0, "step": 0.3},
        {"kind": "float", "low": 0.0, "high": 1.0, "step": 0.0},
        {"kind": "float", "low": 1.0, "high": 3.0, "step": 1.0, "log": True},
        {"kind": "int", "low": 1, "high": 8, "step": 0.5},
        {"kind": "int", "low": 1.0, "high": 8.0},
        {"kind": "categorical", "choices": ("a",)},
        {"kind": "categorical", "choices": ("a", "a")},
        {"kind": "categorical", "choices": ("a", "b"), "step": 1},
    ],
)
def test_bounds_that_contradict_themselves_are_refused(values):
    with pytest.raises(ValueError, match="field"):
        Bounds(field="field", **values)


def test_a_space_s_definition_is_the_one_of_versions_without_steps():
    parameter = Parameter(name="width", kind="int", role="scientific", why="asked", value=2, low=1, high=4, step=1)
    plain = find_space("temperature").definition["temperature"]
    assert plain.keys() == {"kind", "role", "value", "low", "high", "choices", "log"}
    assert parameter.domain == "[1, 4], step 1"
