"""Properties required of every method's settings, and rules for methods added by users."""

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, Literal, get_args, get_origin

import pytest
from annotated_types import Ge, Gt, Le, Lt
from pydantic import Field, ValidationError, model_validator

from study.plan.plan import EXECUTION_FIELDS, StudyPlan
from tests.study.factories import make_plan
from tests.trainables.conftest import TEXT
from trainables.spec.digest import DIGEST_VERSION
from trainables.spec.methods import (
    METHOD_SPECS,
    AdapterSettings,
    MethodSettings,
    MethodSpec,
    WeightSettings,
    method_spec,
    registered_settings,
    settings_fields,
)
from trainables.spec.trial import SEED_FIELDS, TrialConfig, config_fields

pytestmark = pytest.mark.conformance

CASES = [(name, False) for name in METHOD_SPECS] + [(name, True) for name, s in METHOD_SPECS.items() if s.takes_adapter]
every_method = pytest.mark.parametrize(("method", "adapter"), CASES)
PINNED = json.loads(Path(__file__).with_name("defaults_of_digests.json").read_text(encoding="utf-8"))


def config_of(method: str, adapter: bool = False, **values: Any) -> TrialConfig:
    data = TEXT if METHOD_SPECS[method].modality == "text" else {}
    return TrialConfig(**{**data, "method": method, "adapter": adapter, **values})


def other_value(name: str) -> Any:
    """Return a valid value of a setting other than the default."""
    field = config_fields()[name]
    if get_origin(field.annotation) is Literal:
        return next(each for each in get_args(field.annotation) if each != field.default)
    if field.annotation is bool:
        return not field.default
    return field.default + 1 if field.annotation is int else field.default / 2 or 0.25


def out_of_bounds(name: str) -> Any:
    """Return a value that is out of bounds or not among the choices of a setting."""
    for bound in config_fields()[name].metadata:
        match bound:
            case Ge(ge=limit) | Gt(gt=limit):
                return limit - 1
            case Le(le=limit) | Lt(lt=limit):
                return limit + 1
    return "sideways"


@every_method
def test_the_defaults_of_the_settings_are_valid_and_those_of_the_config(method: str, adapter: bool) -> None:
    spec, config = METHOD_SPECS[method], config_of(method, adapter)
    assert config.settings == spec.settings.model_validate(spec.settings().model_dump())
    assert type(config.settings) is spec.settings
    assert config.settings_of(spec.settings).model_dump() == {n: getattr(config, n) for n in spec.settings.model_fields}


@every_method
def test_a_setting_out_of_its_bounds_is_refused_by_its_name_whatever_the_method(method: str, adapter: bool) -> None:
    for name in method_spec(method, adapter=adapter).fields:
        for values in ({"method": method, "adapter": adapter}, {"method": "ce"}):
            data = TEXT if METHOD_SPECS[str(values["method"])].modality == "text" else {}
            with pytest.raises(ValidationError) as refused:
                TrialConfig(**{**data, **values, name: out_of_bounds(name)})
            assert [finding["loc"] for finding in refused.value.errors()] == [(name,)]


@every_method
def test_an_unknown_setting_is_refused_with_the_nearest_known_one(method: str, adapter: bool) -> None:
    settings = METHOD_SPECS[method].settings
    with pytest.raises(ValidationError, match="Extra inputs are not permitted"):
        settings.model_validate({"unknown": 1})
    for name in settings.model_fields:
        with pytest.raises(ValidationError, match=f"unknown field '{name}x'; did you mean '{name}'"):
            config_of(method, adapter, **{f"{name}x": 1})


@every_method
def test_a_config_survives_json_with_every_setting_changed(method: str, adapter: bool) -> None:
    # A released variant of pesf_kd determines other settings.
    settled = {"pesf_variant"} if method == "pesf_kd" else set()
    changed = {name: other_value(name) for name in method_spec(method, adapter=adapter).fields - settled}
    config = config_of(method, adapter, **changed)
    assert {name: config.model_dump()[name] for name in changed} == changed
    assert TrialConfig.model_validate_json(config.model_dump_json()) == config
    assert TrialConfig(**json.loads(json.dumps(config.model_dump(mode="json")))) == config
    assert config.settings.model_dump().items() <= config.model_dump().items()


@every_method
def test_the_id_changes_with_each_field_that_the_trial_reads_and_with_no_other(method: str, adapter: bool) -> None:
    config, read = config_of(method, adapter), method_spec(method, adapter=adapter).fields
    values = {name: other_value(name) for name in sorted(read)}
    values |= {name: config_fields()[name].default for name in values if getattr(config, name) == values[name]}
    changed = {name: config_of(method, adapter, **{name: value}).config_id for name, value in values.items()}
    assert len({config.config_id, *changed.values()}) == 1 + len(read)
    unread = settings_fields(registered_settings()).keys() - read
    assert unread
    assert config_of(method, adapter, **{name: other_value(name) for name in unread}).config_id == config.config_id


def test_all_wrong_values_are_named_at_once() -> None:
    with pytest.raises(ValidationError) as refused:
        TrialConfig(method="dkd", dkd_beta=-1, crd_dim=0, epochs=0)
    assert {finding["loc"] for finding in refused.value.errors()} == {("dkd_beta",), ("crd_dim",), ("epochs",)}


@pytest.mark.parametrize("kind", ["trial", "plan"])
def test_the_defaults_that_digests_leave_out_are_those_of_the_digests_version(kind: str) -> None:
    """With another default, an id would denote another config. Raise `DIGEST_VERSION`, then pin the new default."""
    assert PINNED["version"] == DIGEST_VERSION
    own = {**config_fields()} if kind == "trial" else StudyPlan.model_fields
    left_out = SEED_FIELDS if kind == "trial" else EXECUTION_FIELDS
    found = {
        name: field.get_default(call_default_factory=True)
        for name, field in own.items()
        if not field.is_required() and name not in left_out and name in PINNED[kind]
    }
    assert json.loads(json.dumps(found)) == PINNED[kind]


class MarginSettings(WeightSettings):
    margin: float = Field(1.0, gt=0, le=10, description="margin: where the loss begins")
    margin_end: float = Field(2.0, gt=0, le=10, description="margin: where it ends")

    @model_validator(mode="after")
    def _begins_before_it_ends(self) -> "MarginSettings":
        if self.margin >= self.margin_end:
            raise ValueError("margin must be less than margin_end")
        return self


def test_a_method_registered_later_brings_its_settings_and_changes_no_digest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = {case: config_of(*case).config_id for case in CASES}
    plan = make_plan(tmp_path)
    digest = plan.digest
    monkeypatch.setitem(METHOD_SPECS, "margin", MethodSpec("margin", MarginSettings))
    assert {case: config_of(*case).config_id for case in CASES} == before
    assert make_plan(tmp_path).digest == plan.digest == digest
    config = TrialConfig(method="margin", margin="1.5")
    assert config.settings == MarginSettings(margin=1.5)
    assert TrialConfig(**config.model_dump()) == config
    assert config.config_id != TrialConfig(method="margin").config_id
    assert TrialConfig(method="kd", margin=1.5).model_dump()["margin"] == 1.5


def test_a_rule_between_settings_holds_where_they_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(METHOD_SPECS, "margin", MethodSpec("margin", MarginSettings))
    with pytest.raises(ValidationError, match="margin must be less than margin_end"):
        TrialConfig(method="margin", margin=3.0)
    assert TrialConfig(method="kd", margin=3.0).method == "kd"


class OtherWeight(MethodSettings):
    kd_weight: float = Field(1.0, ge=0, le=1, description="of another meaning")


class OwnEpochs(MethodSettings):
    epochs: int = Field(1, ge=0, le=1, description="of another meaning")


class NoDefault(MethodSettings):
    margin: float = Field(gt=0, le=1, description="without a default")


@pytest.mark.parametrize(
    ("settings", "says"),
    [
        (OtherWeight, "field 'kd_weight' of OtherWeight differs from the field of that name of another method"),
        (OwnEpochs, "every trial has a field 'epochs'"),
        (NoDefault, "field 'margin' of NoDefault has no default"),
    ],
)
def test_settings_that_clash_with_others_are_refused(
    monkeypatch: pytest.MonkeyPatch, settings: type[MethodSettings], says: str
) -> None:
    monkeypatch.setitem(METHOD_SPECS, "other", MethodSpec("other", settings))
    with pytest.raises(ValueError, match=says):
        TrialConfig()


def test_an_adapters_settings_are_read_in_addition_to_the_methods_own() -> None:
    config = TrialConfig(method="dkd", adapter=True, adapter_width=8, dkd_alpha=2.0)
    assert config.settings_of(AdapterSettings).adapter_width == 8
    assert set(AdapterSettings.model_fields) <= config.method_spec.fields
    assert not set(AdapterSettings.model_fields) & METHOD_SPECS["dkd"].fields


@pytest.mark.launcher
def test_the_settings_of_all_methods_are_known_without_torch() -> None:
    code = "import sys; from trainables.spec.trial import config_fields as f; print(len(f()), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split() == [str(len(config_fields())), "False"]
