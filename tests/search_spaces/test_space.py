"""Rejected definitions of parameters and spaces, and membership of values."""

from dataclasses import replace

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from optuna.trial import FixedTrial

from search_spaces.space import Parameter, SearchSpace

WIDTH = Parameter(name="width", kind="int", role="scientific", why="asked", value=4, low=2, high=8, log=True)
RATE = Parameter(name="rate", kind="float", role="nuisance", why="tuned", value=0.5, low=0.1, high=1.0)
FLAG = Parameter(name="flag", kind="categorical", role="scientific", why="asked", value=False, choices=(False, True))
HELD = Parameter(name="held", kind="float", role="fixed", why="held", value=1.0)


def described(**changes: object) -> Parameter:
    """Return a valid parameter with changed fields."""
    fields: dict[str, object] = {
        "name": "width", "kind": "int", "role": "scientific", "why": "asked", "value": 4, "low": 2, "high": 8,
    }  # fmt: skip
    return Parameter(**{**fields, **changes})  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "not a name"}, "not a valid name of a config field"),
        ({"kind": "complex"}, "kind must be one of"),
        ({"role": "secret"}, "role one of"),
        ({"why": " "}, "give the reason"),
        ({"role": "fixed"}, "without bounds"),
        ({"high": None}, "needs low and high"),
        ({"high": 2}, "low < high"),
        ({"low": 0, "log": True}, "must start above 0"),
        ({"high": 8.0}, "int bounds"),
        ({"value": 9}, r"value 9 is not a int within \[2, 8\]"),
        ({"value": 4.0}, "value 4.0 is not"),
        ({"kind": "float", "high": float("inf")}, "finite"),
        ({"kind": "categorical", "choices": (1, 4)}, "without bounds, log or step"),
        ({"kind": "categorical", "low": None, "high": None, "choices": (4,)}, "at least two different"),
        ({"kind": "categorical", "low": None, "high": None, "choices": (4, 4)}, "at least two different"),
    ],
)
def test_a_parameter_that_contradicts_itself_is_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        described(**changes)


def test_a_space_without_a_question_or_with_a_field_twice_or_with_nothing_to_ask_is_refused() -> None:
    with pytest.raises(ValueError, match="width more than once"):
        SearchSpace(name="s", question="why?", parameters=(WIDTH, WIDTH))
    with pytest.raises(ValueError, match="no scientific parameter"):
        SearchSpace(name="s", question="why?", parameters=(RATE, HELD))
    with pytest.raises(ValueError, match="needs a question"):
        SearchSpace(name="s", question="because", parameters=(WIDTH,))


def test_a_parameter_contains_only_values_of_its_own_type() -> None:
    assert WIDTH.contains(2)
    assert not WIDTH.contains(2.0)
    assert not WIDTH.contains(True)
    assert RATE.contains(1.0)
    assert not RATE.contains(1)
    assert not RATE.contains(float("nan"))
    assert FLAG.contains(True)
    assert not FLAG.contains(1)
    assert HELD.contains(1.0)
    assert not HELD.contains(1)


def test_a_parameter_says_its_domain() -> None:
    assert [parameter.domain for parameter in (WIDTH, RATE, FLAG, HELD)] == [
        "[2, 8], log", "[0.1, 1]", "{False, True}", "1.0",
    ]  # fmt: skip


def test_a_space_lists_its_parameters_by_role() -> None:
    space = SearchSpace(name="s", question="why?", parameters=(WIDTH, RATE, FLAG, HELD))
    assert space.scientific == ("width", "flag")
    assert space.varied == ("width", "rate", "flag")


@given(low=st.floats(1e-6, 1e3), ratio=st.floats(1.001, 1e6), log=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_a_suggested_float_never_leaves_its_bounds(low: float, ratio: float, log: bool, seed: int) -> None:
    high = low * ratio
    rate = Parameter(name="rate", kind="float", role="nuisance", why="tuned", value=low, low=low, high=high, log=log)
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    assert rate.contains(rate.suggest(study.ask()))


@given(low=st.integers(1, 50), span=st.integers(1, 1000), log=st.booleans(), seed=st.integers(0, 2**32 - 1))
def test_a_suggested_int_never_leaves_its_bounds(low: int, span: int, log: bool, seed: int) -> None:
    width = Parameter(
        name="width", kind="int", role="scientific", why="asked", value=low, low=low, high=low + span, log=log
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    assert width.contains(width.suggest(study.ask()))


def test_a_fixed_parameter_does_not_ask_the_sampler() -> None:
    trial = FixedTrial({})
    assert HELD.suggest(trial) == 1.0
    assert trial.params == {}


def test_the_definition_of_a_space_holds_its_domains_and_no_words() -> None:
    space = SearchSpace(name="s", question="Which?", parameters=(WIDTH, HELD))
    reworded = SearchSpace(
        name="s", question="Which one?", parameters=(replace(WIDTH, why="reworded"), replace(HELD, why="too"))
    )
    assert reworded.definition == space.definition
    for change in ({"low": 1}, {"high": 9}, {"log": False}, {"value": 5}, {"role": "nuisance"}):
        other = SearchSpace(name="s", question="Which?", parameters=(replace(WIDTH, **change), FLAG, HELD))
        same = SearchSpace(name="s", question="Which?", parameters=(WIDTH, FLAG, HELD))
        assert other.definition != same.definition
