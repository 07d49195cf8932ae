"""Every number of a plan has bounds that files, databases and float32 can hold."""

import math
import types
import typing
from collections.abc import Iterator
from typing import Any

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import BaseModel, ValidationError

from study import launch as launcher
from study.plan.confirmation import ConfirmationRequest
from study.plan.plan import StudyPlan
from tests.study.factories import make_plan
from trainables.spec.methods import registered_settings
from trainables.spec.trial import TrialConfig
from trainables.teacher.request import RequestError, resolve_request

MODELS = (StudyPlan, TrialConfig, ConfirmationRequest)
BEYOND = (10**39, -(10**39), math.nan, math.inf, -math.inf, "1e400", 10**400)
# Fields with bounds enforced by validators.
BY_VALIDATOR = {"gpus_per_trial", "pack", "teacher_outputs_limit"}


def numbers_of(model: type[BaseModel]) -> Iterator[tuple[str, tuple[type, ...], list[Any]]]:
    """Yield name, types and bounds of each numeric field of a model."""
    for name, field in model.model_fields.items():
        members = typing.get_args(field.annotation) if typing.get_origin(field.annotation) in UNIONS else ()
        kinds = tuple(kind for kind in (members or (field.annotation,)) if isinstance(kind, type))
        if any(issubclass(kind, int | float) and kind is not bool for kind in kinds):
            yield name, kinds, field.metadata


UNIONS = (typing.Union, types.UnionType)
FIELDS = [(model, name, metadata) for model in MODELS for name, _, metadata in numbers_of(model)]
SETTINGS = {name: metadata for model in registered_settings() for name, _, metadata in numbers_of(model)}
FIELDS += [(TrialConfig, name, metadata) for name, metadata in SETTINGS.items()]


def test_there_are_as_many_numbers_as_one_would_think():
    assert len(FIELDS) > 55
    assert {"trials", "pack", "time_budget", "teacher_outputs_limit"} <= {name for _, name, _ in FIELDS}


@pytest.mark.parametrize(
    ("model", "name", "metadata"), FIELDS, ids=lambda each: getattr(each, "__name__", str(each)[:40])
)
def test_every_number_has_a_lower_and_an_upper_bound(model, name, metadata):
    if name not in BY_VALIDATOR:
        assert any(isinstance(each, Ge | Gt) for each in metadata), f"{name} has no lower bound"
        assert any(isinstance(each, Le | Lt) for each in metadata), f"{name} has no upper bound"
    for value in BEYOND:
        values = {"configs": 1, "seeds": 2, name: value} if model is ConfirmationRequest else {name: value}
        with pytest.raises(ValidationError) as refused:
            model(**values)
        assert name in {finding["loc"][0] for finding in refused.value.errors()}, value


@pytest.mark.parametrize(
    ("arguments", "flag"),
    [
        (("--trials", 10**30), "--trials"),
        (("--promising", 10**30), "--promising"),
        (("--replicates", -1), "--replicates"),
        (("--epochs", 10**30), "--epochs"),
        (("--confirm", 10**30), "--confirm"),
        (("--seeds", 10**30, "--confirm", 1), "--seeds"),
        (("--seed", 2**63), "--seed"),
        (("--max-concurrent", 10**30), "--max-concurrent"),
        (("--cpus-per-trial", "nan"), "--cpus-per-trial"),
        (("--cpus-per-trial", "0.33333"), "--cpus-per-trial: Ray allocates cores and GPUs in steps of 0.0001"),
        (("--cpus-per-trial", "1e-320"), "--cpus-per-trial: Ray allocates cores and GPUs in steps of 0.0001"),
        (("--gpus-per-trial", "1e-10"), "--gpus-per-trial: Ray allocates cores and GPUs in steps of 0.0001"),
        (("--gpus-per-trial", "1e400"), "--gpus-per-trial"),
        (("--workers-per-trial", 10**30), "--workers-per-trial"),
        (("--time-budget", "1e400"), "--time-budget"),
        (("--trial-timeout", "nan"), "--trial-timeout"),
        (("--pack", "9" * 5000), "--pack: give a number from 1 to 64"),
        (("--teacher-epochs", 10**30), "--teacher-epochs"),
        (("--teacher-outputs-limit", "9" * 400 + "GiB"), "--teacher-outputs-limit"),
        (("--teacher-outputs-limit", "-1"), "--teacher-outputs-limit"),
        (("--teacher-outputs-limit", "9EiB"), "--teacher-outputs-limit"),
        (("--temperature", "nan"), "--temperature"),
        (("--temperature", "1e-320"), "--temperature"),
        (("--set", f"batch_size={10**30}"), "--set batch_size"),
        (("--set", "kd_weight=1e400"), "--set kd_weight"),
        (("--set", "split_seed=-1"), "--set split_seed"),
    ],
    ids=lambda each: str(each)[:40],
)  # fmt: skip
def test_a_number_out_of_bounds_is_refused_by_its_flag(command, tmp_path, arguments, flag):
    done = command(launcher.main, "--space", "adapter_width", *arguments, "--output-dir", tmp_path / "out")
    assert done.code == 2, done.said
    assert flag in done.err
    assert "Traceback" not in done.err
    assert len(done.err) < 400
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("changes", "flag"),
    [
        ({"seed": 2**63}, "--seed"),
        ({"split_seed": 10**30}, "--split-seed"),
        ({"threads": 10**30}, "--threads"),
        ({"device": "cuda:99999999999999999999"}, "--device"),
        *(({"overrides": {name: value}}, f"--{name.replace('_', '-')}")
          for name in ("epochs", "batch_size", "learning_rate", "momentum", "weight_decay")
          for value in (10**30 if name in ("epochs", "batch_size") else 1e39, -1, math.nan, math.inf)),
    ],
    ids=str,
)  # fmt: skip
def test_a_teachers_numbers_have_bounds_too(changes, flag):
    values = {
        "dataset": "digits", "model": "cnn_3_4", "recipe": "short", "overrides": {}, "seed": 0, "split_seed": 0,
        "precision": "fp32", "device": "cpu", "threads": 1,
    }  # fmt: skip
    resolve_request(**values)
    with pytest.raises(RequestError) as refused:
        resolve_request(**{**values, **changes})
    assert f"{flag}:" in str(refused.value) or f"{flag} " in str(refused.value)
    assert "\n" not in str(refused.value)


def test_what_lies_within_bounds_is_taken(tmp_path):
    plan = make_plan(
        tmp_path, trials=1_000_000, promising=1_000_000, replicates=10_000, seed=2**63 - 1, time_budget=1e9,
        cpus_per_trial=0.0001, teacher_outputs_limit="7.5 EiB", base={"batch_size": 1_000_000, "split_seed": 2**63 - 1},
    )  # fmt: skip
    assert plan.total_trials == 1_000_000 + 10_000 * 1_000_002
    plan.save()
