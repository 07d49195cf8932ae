"""Properties that every space must have."""

import itertools
import subprocess
import sys
from collections.abc import Mapping

import optuna
import pytest
from optuna.trial import FixedTrial

from search_spaces import SPACES, find_space
from search_spaces.baseline import BASELINE
from search_spaces.space import ROLES, Parameter, SearchSpace, Value
from trainables.spec.trial import TrialConfig, config_fields

EVERY_SPACE = pytest.mark.parametrize("space", SPACES.values(), ids=SPACES.keys())


def sampled(space: SearchSpace, sampler: optuna.samplers.BaseSampler, count: int) -> list[dict[str, Value]]:
    """Return `count` points suggested by a sampler."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.create_study(sampler=sampler)
    points = []
    for number in range(count):
        trial = study.ask()
        points.append(space.suggest(trial))
        study.tell(trial, float(number % 7))
    return points


def assert_inside(space: SearchSpace, values: Mapping[str, Value]) -> None:
    for parameter in space.parameters:
        assert parameter.contains(values[parameter.name]), parameter.name


def extremes(parameter: Parameter) -> tuple[Value, ...]:
    """Return the bounds, the choices or the fixed value of a parameter."""
    if parameter.role == "fixed":
        return (parameter.value,)
    if parameter.kind == "categorical":
        return parameter.choices
    assert parameter.low is not None
    assert parameter.high is not None
    return (parameter.low, parameter.high)


@EVERY_SPACE
def test_every_field_of_a_space_is_a_field_of_the_trial_config(space: SearchSpace) -> None:
    assert {parameter.name for parameter in space.parameters} <= set(config_fields())


@EVERY_SPACE
def test_every_corner_of_a_space_is_a_valid_trial_that_keeps_its_values(space: SearchSpace) -> None:
    names = [parameter.name for parameter in space.parameters]
    for corner in itertools.product(*map(extremes, space.parameters)):
        values = dict(zip(names, corner, strict=True))
        dumped = TrialConfig(**values).model_dump()
        assert {name: dumped[name] for name in names} == values
        assert_inside(space, values)


@EVERY_SPACE
@pytest.mark.parametrize("sampler_class", [optuna.samplers.RandomSampler, optuna.samplers.TPESampler])
def test_every_suggestion_is_inside_the_space_with_exact_types(
    space: SearchSpace, sampler_class: type[optuna.samplers.BaseSampler]
) -> None:
    for values in sampled(space, sampler_class(seed=3), 60):
        assert list(values) == [parameter.name for parameter in space.parameters]
        assert_inside(space, values)
        dumped = TrialConfig(**values).model_dump()
        assert all(type(dumped[name]) is type(value) for name, value in values.items())


@EVERY_SPACE
def test_a_sampler_chooses_what_varies_and_nothing_else(space: SearchSpace) -> None:
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    trial = study.ask()
    space.suggest(trial)
    assert tuple(trial.params) == space.varied


@EVERY_SPACE
def test_each_parameter_of_a_space_says_its_role_and_its_reason(space: SearchSpace) -> None:
    assert space.question.endswith("?")
    assert space.scientific
    assert all(parameter.role in ROLES and len(parameter.why) > 20 for parameter in space.parameters)


@EVERY_SPACE
def test_all_spaces_start_from_the_same_baseline_which_is_the_trial_configs_default(
    space: SearchSpace,
) -> None:
    baseline = {parameter.name: parameter.value for parameter in BASELINE}
    point = space.default_point()
    assert {name: point[name] for name in baseline} == baseline
    defaults = TrialConfig().model_dump()
    assert {name: defaults[name] for name in point} == point
    assert_inside(space, point)


@EVERY_SPACE
def test_the_default_point_can_be_enqueued_as_a_trial(space: SearchSpace) -> None:
    assert space.suggest(FixedTrial(space.default_point())) == space.default_point()


@EVERY_SPACE
def test_each_parameter_contains_the_trial_configs_value_and_none_beyond_its_bounds(space: SearchSpace) -> None:
    inside = TrialConfig().model_dump()
    for parameter in space.parameters:
        assert parameter.contains(inside[parameter.name])
        if parameter.kind != "categorical":
            assert not parameter.contains(type(parameter.value)(10**6))
        assert not parameter.contains(None)


def test_a_space_is_found_by_the_name_that_it_bears() -> None:
    assert {name: space.name for name, space in SPACES.items()} == {name: name for name in SPACES}
    assert find_space("temperature") is SPACES["temperature"]


def test_an_unknown_space_is_refused_by_naming_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"adaptor_width.*did you mean 'adapter_width'.*Known: .*joint"):
        find_space("adaptor_width")
    with pytest.raises(ValueError, match=r"^unknown search space 'zzz'\. Known: "):
        find_space("zzz")


@pytest.mark.launcher
def test_importing_the_spaces_imports_no_optimiser_and_no_tensor_library() -> None:
    heavy = ["torch", "ray", "mlflow", "optuna", "numpy", "pydantic", "trainables", "study"]
    program = f"import sys, search_spaces; print([name for name in {heavy} if name in sys.modules])"
    output = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert output.stdout.strip() == "[]"
