"""The table of options. Command lines, defaults and resume are derived from it."""

import inspect

import pytest

from study.cli.options import with_options
from study.confirm import confirm_study
from study.launch import launch
from study.plan.options import OPTIONS, names_into, names_of
from study.plan.plan import EXECUTION_FIELDS, StudyPlan
from trainables.spec.trial import TrialConfig


def parameters_of(command):
    return {name for name in inspect.signature(command).parameters if name not in ("context", "name", "values")}


def test_the_launcher_takes_every_option_and_a_confirmation_every_one_that_a_resume_replaces():
    assert parameters_of(launch) == OPTIONS.keys() - {"name"}
    assert "name" in inspect.signature(launch).parameters
    assert parameters_of(confirm_study) >= {"confirm", "seeds", *names_of("execution")}


@pytest.mark.parametrize("name", names_into("plan"))
def test_an_option_that_goes_into_the_plan_is_a_field_with_the_same_default(name):
    field = StudyPlan.model_fields[name]
    # Digests leave out 3, the former default number of replicates. Commands always write the current default into the
    # plan.
    expected = 3 if name == "replicates" else OPTIONS[name].default
    if not field.is_required():
        assert field.default == expected


@pytest.mark.parametrize("name", names_into("config"))
def test_an_option_that_goes_into_the_configs_is_a_field_there(name):
    assert name in TrialConfig.model_fields


def test_a_resume_may_replace_the_execution_and_nothing_else():
    assert {*names_of("execution")} - {"output_dir"} == EXECUTION_FIELDS
    assert StudyPlan.model_fields.keys() >= EXECUTION_FIELDS


def test_a_command_gets_its_options_as_keyword_arguments():
    @with_options(("trials", "quiet"))
    def command(what: str, **values):
        raise AssertionError

    what, trials, quiet = inspect.signature(command).parameters.values()
    assert (what.name, what.annotation) == ("what", str)
    assert (trials.name, trials.default, trials.annotation.__origin__) == ("trials", 24, int)
    (described,) = quiet.annotation.__metadata__
    assert (described.default, *described.param_decls) == ("--quiet", "-q")


def test_an_option_that_is_not_declared_is_a_mistake():
    with pytest.raises(KeyError):
        with_options(("trails",))(lambda **values: None)
