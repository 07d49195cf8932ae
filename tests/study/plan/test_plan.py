import json
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search_spaces import SPACES
from study.cli.request import resumed_plan
from study.plan.checks import check_space_fits_method, controls_for, refuse_differences
from study.plan.plan import StudyPlan
from study.plan.resolve import load_plan, resolve_plan
from study.plan.size import epochs_total
from tests.study.factories import make_plan
from trainables.process.errors import UsageError
from trainables.storage.sqlite_uri import sqlite_uri


def test_a_plan_survives_its_file(tmp_path):
    plan = make_plan(tmp_path)
    plan.save()
    assert load_plan(plan.directory) == plan


def test_the_same_study_has_the_same_digest_wherever_it_runs(tmp_path):
    plan = make_plan(tmp_path)
    assert make_plan(tmp_path, max_concurrent=1, address="auto").digest == plan.digest
    assert make_plan(tmp_path, seed=1).digest != plan.digest
    assert make_plan(tmp_path, base={"epochs": 5}).digest != plan.digest


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"trials": 0}, "--trials: Input should be greater than or equal to 1 (given: 0)"),
        ({"space": "adapter_widht"}, "did you mean 'adapter_width'"),
        ({"base": {"method": "pesfkd"}}, "did you mean 'pesf_kd'"),
        ({"base": {"dataset": "digit"}}, "did you mean 'digits'"),
        ({"overrides": {"temperature": -1.0}}, "temperature"),
        ({"overrides": {"adapter_width": 4}}, "varies adapter_width"),
        ({"name": "../elsewhere"}, "use 1 to 100 letters"),
        ({"name": ""}, "use 1 to 100 letters"),
        ({"sampler": "grid"}, "sampler"),
        ({"time_budget": 0}, "--time-budget"),
        ({"seed": -1}, "seed"),
    ],
)
def test_bad_values_are_refused_by_name(tmp_path, values, says):
    with pytest.raises(UsageError) as refusal:
        make_plan(tmp_path, **values)
    assert says in str(refusal.value)


def test_several_bad_values_are_all_named(tmp_path):
    with pytest.raises(UsageError) as refusal:
        make_plan(tmp_path, trials=0, replicates=0)
    assert "trials" in str(refusal.value)
    assert "replicates" in str(refusal.value)


def test_a_method_that_ignores_the_question_is_refused(tmp_path):
    with pytest.raises(UsageError, match="does not use; methods that do: pesf_kd"):
        check_space_fits_method(make_plan(tmp_path, base={"method": "kd"}))
    check_space_fits_method(make_plan(tmp_path, space="temperature", base={"method": "kd"}))


def test_a_resume_with_another_plan_names_each_field_that_differs(tmp_path):
    plan = make_plan(tmp_path)
    with pytest.raises(UsageError) as refusal:
        refuse_differences(plan, {"trials": 9, "seed": 0, "base": {"epochs": 7, "method": "pesf_kd"}})
    assert "trials: the study has 5, but 9 was given" in str(refusal.value)
    assert "epochs: the study has 4, but 7 was given" in str(refusal.value)
    assert "seed" not in str(refusal.value)


def test_a_resume_may_change_where_a_study_runs(tmp_path):
    refuse_differences(make_plan(tmp_path), {"max_concurrent": 1, "address": "auto", "base": {}})


def test_a_space_whose_bounds_changed_since_cannot_be_resumed(tmp_path):
    plan = make_plan(tmp_path).model_copy(update={"space_digest": "000000000000"})
    with pytest.raises(UsageError, match="bounds of 'adapter_width' have changed"):
        refuse_differences(plan, {})


def test_a_missing_study_is_refused_with_those_that_exist(tmp_path):
    make_plan(tmp_path).save()
    with pytest.raises(UsageError, match="existing studies: planned"):
        load_plan(tmp_path / "other")


def test_a_damaged_plan_is_refused_by_path(tmp_path):
    path = make_plan(tmp_path).save()
    path.write_text(path.read_text()[:-20])
    with pytest.raises(UsageError, match=r"plan\.json is not a plan"):
        load_plan(path.parent)


@pytest.mark.parametrize(
    ("uri", "kept"),
    [
        ("postgresql://me:hushhush@host/db", "postgresql://***@host/db"),
        ("postgresql://me:a@hushhush@host/db", "postgresql://***@host/db"),
        ("postgresql://host/db?user=me&passwd=hushhush&sslmode=require", "postgresql://host/db?user=***&passwd=***&sslmode=require"),
        ("mssql+pyodbc:///?odbc_connect=PWD%3Dhushhush", "mssql+pyodbc:///?odbc_connect=***"),
    ],
)  # fmt: skip
def test_secrets_of_uris_are_not_kept_and_asked_for_again_also_of_earlier_plans(tmp_path, uri, kept):
    plan = make_plan(tmp_path, tracking_uri=uri)
    written = json.loads(plan.save().read_text())
    assert written["tracking_uri"] == kept
    assert "hushhush" not in json.dumps(written)
    with pytest.raises(UsageError, match="give --tracking-uri again"):
        resumed_plan(plan.name, tmp_path, {})
    assert resumed_plan(plan.name, tmp_path, {"tracking_uri": uri}).tracking_uri == uri


def test_a_store_in_a_folder_of_any_name_is_kept_as_it_is(tmp_path):
    folder = tmp_path / "a?b %41 #c=d@e"
    folder.mkdir()
    uri = sqlite_uri(folder / "mlflow.db")
    plan = make_plan(tmp_path, tracking_uri=uri)
    plan.save()
    assert resumed_plan(plan.name, tmp_path, {}).tracking_uri == uri


@pytest.mark.parametrize("space", SPACES)
def test_controls_stand_where_the_space_starts(tmp_path, space):
    plan = make_plan(tmp_path, space=space)
    for planned in plan.control_trials():
        start = {**plan.search_space.default_point(), "method": planned.config.method}
        assert {name: getattr(planned.config, name) for name in start} == start


def test_a_methods_adapter_is_in_the_search_and_in_no_control(tmp_path):
    controls = controls_for("dkd", adapter=True)
    plan = make_plan(tmp_path, base={"method": "dkd", "adapter": True}, controls=controls)
    check_space_fits_method(plan)
    assert plan.configure(plan.search_space.default_point()).adapter
    planned = list(plan.control_trials())
    assert {(p.config.method, p.config.adapter) for p in planned} == {("ce", False), ("kd", False), ("dkd", False)}
    plan.save()
    assert load_plan(plan.directory) == plan
    with pytest.raises(UsageError, match="dkd with --adapter"):
        check_space_fits_method(make_plan(tmp_path, base={"method": "dkd"}))


@pytest.mark.parametrize(("method", "adapter"), [("pesf_kd", False), ("pesf_kd", True), ("dkd", False), ("dkdd", True)])
def test_a_method_that_cannot_do_without_its_adapter_is_no_control(method, adapter):
    assert controls_for(method, adapter=adapter) == ("ce", "kd")


def test_what_is_held_holds_in_every_trial_and_in_the_controls(tmp_path):
    plan = make_plan(tmp_path, overrides={"temperature": 2.5})
    assert plan.configure(plan.search_space.default_point()).temperature == 2.5
    assert {planned.config.temperature for planned in plan.control_trials()} == {2.5}


@given(st.integers(1, 1000), st.integers(1, 50), st.integers(1, 50), st.integers(1, 1000))
def test_the_cost_is_the_trials_times_their_epochs(trials, promising, replicates, epochs):
    plan = resolve_plan(
        {
            "name": "n", "space": "joint", "trials": trials, "promising": promising, "replicates": replicates,
            "base": {"epochs": epochs}, "tracking_uri": "sqlite:///x",
        }
    )  # fmt: skip
    assert plan.total_trials == trials + 2 * replicates + min(promising, trials) * replicates
    assert epochs_total(plan) == plan.total_trials * epochs


@pytest.mark.launcher
def test_checking_a_plan_imports_nothing_heavy():
    script = (
        "import sys, study.plan.resolve\n"
        "heavy = {'torch', 'ray', 'mlflow', 'optuna', 'pandas'} & set(sys.modules)\n"
        "sys.exit(', '.join(heavy) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_an_unknown_key_in_a_plan_is_refused():
    with pytest.raises(ValueError, match="trails"):
        StudyPlan(name="n", space="joint", base={}, tracking_uri="x", trails=3)


def test_a_plan_on_disk_that_asks_for_more_than_it_has_is_refused_for_that(tmp_path):
    plan = make_plan(tmp_path, trials=2)
    plan.save()
    path = plan.directory / "plan.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "confirmation": {"configs": 9, "seeds": 4}}))
    with pytest.raises(UsageError, match=r"is not a plan of this version:\nthe search proposes 2 configs") as raised:
        load_plan(plan.directory)
    assert "JSON" not in str(raised.value)
