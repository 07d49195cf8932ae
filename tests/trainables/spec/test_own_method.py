"""Methods of the user's own: their settings in configs, and what is no method."""

import pytest
from pydantic import ValidationError

from study.records import TRIALS_SCHEMA
from tests.user_methods import METHOD
from tests.user_nets import new_process, write
from trainables.methods.registry import METHODS
from trainables.spec.measures import CALIBRATION, CLASSES, CORRECT, COST_FACTS, DATA_FACTS, MEASURES
from trainables.spec.methods import METHOD_SPECS, method_spec
from trainables.spec.methods.own import RECORD_COLUMNS
from trainables.spec.methods.registry import own_spec
from trainables.spec.methods.row_names import short_name
from trainables.spec.trial import TrialConfig, config_fields, own_fields
from trainables.user_code.errors import UserCodeError
from trainables.user_code.loading import canonical_name, remember_json, sources_of


@pytest.fixture(autouse=True)
def _process():
    with new_process():
        yield


def named(folder, text=METHOD, name="METHOD"):
    return canonical_name(f"{write(folder, mine=text)}/mine.py:{name}")


def test_its_settings_are_fields_of_its_own_configs(tmp_path):
    name = named(tmp_path)
    config = TrialConfig(method=name, matching_power=1.5)
    assert config.model_dump()["matching_power"] == 1.5
    assert config.settings.matching_power == 1.5
    assert TrialConfig(**config.model_dump()) == config
    assert config.changed_fields == {"method": name, "matching_power": 1.5, "teacher_epochs": 30}
    assert config.config_id != TrialConfig(method=name).config_id
    assert config.with_seeds(0, 1).config_id == config.config_id
    assert "matching_power" not in TrialConfig(method="kd").model_dump()
    with pytest.raises(ValidationError, match="did you mean 'matching_power'"):
        TrialConfig(method=name, matching_powr=2.0)
    with pytest.raises(ValidationError, match="greater than or equal to 1"):
        TrialConfig(method=name, matching_power=0.5)
    with pytest.raises(ValidationError, match="unknown field 'matching_power'"):
        TrialConfig(method="kd", matching_power=2.0)
    values = {**config.model_dump(), "method": "kd"}
    assert TrialConfig(**own_fields("kd", values, [name])) == TrialConfig(method="kd")


def test_configs_of_registered_methods_are_the_same_beside_it(tmp_path):
    before = {name: TrialConfig(method="kd", temperature=2.0).config_id for name in ("kd",)}, tuple(config_fields())
    method_spec(named(tmp_path))
    after = {name: TrialConfig(method="kd", temperature=2.0).config_id for name in ("kd",)}, tuple(config_fields())
    assert before == after
    assert len(METHODS) == len(METHOD_SPECS)


def test_two_versions_of_a_file_are_two_methods_in_one_process(tmp_path):
    names = [named(tmp_path / side, METHOD.replace("2.0, ge=1", f"{default}, ge=1"))
             for side, default in (("a", 2.0), ("b", 3.0))]  # fmt: skip
    assert [TrialConfig(method=name).matching_power for name in names] == [2.0, 3.0]
    assert len({TrialConfig(method=name).config_id for name in names}) == 2
    with pytest.raises(ValueError, match="field 'matching_power' of MatchingSettings differs"):
        config_fields(*names)


def test_a_process_that_was_sent_the_source_reads_its_configs(tmp_path):
    name = named(tmp_path)
    dumped, sent = TrialConfig(method=name, matching_power=4.0).model_dump(), sources_of(name).to_json()
    with new_process():
        with pytest.raises(ValidationError, match=r"the sources of mine.py:METHOD@.* are not known here"):
            TrialConfig(**dumped)
        remember_json([sent])
        assert TrialConfig(**dumped).matching_power == 4.0
        assert METHODS[name].spec == method_spec(name)
        assert METHODS[name].name == name


def test_tables_show_file_and_digest(tmp_path):
    name = named(tmp_path)
    digest = name.partition("@")[2]
    assert short_name(name) == f"mine-{digest[:6]}"
    assert short_name(named(tmp_path, METHOD.replace("METHOD =", "OTHER ="), "OTHER")).startswith("mine:OTHER-")
    assert short_name("kd") == "kd"


def test_the_columns_of_records_are_no_settings():
    fields = config_fields().keys()
    measured = {*MEASURES, *COST_FACTS, *DATA_FACTS, *CALIBRATION}
    others = {name for name in TRIALS_SCHEMA.names if name not in fields and name not in measured}
    assert {name for name in others if name.isidentifier()} <= RECORD_COLUMNS
    assert not any(name.isidentifier() for name in (*measured, CORRECT, CLASSES))


SETTING = 'matching_power: float = Field(2.0, ge=1, le=8, description="exponent")'
DEFINED = METHOD[METHOD.index("METHOD = Method") :]
SIGNATURE = "*, matching_power: float, ce_weight: float, kd_weight: float"
REFUSED = {
    ("DEFINED", "METHOD = losses"): "mine.py:METHOD is a function, and a method must be a",
    ("DEFINED", "METHOD = Method"): "mine.py:METHOD is Method, and a method must be a",
    ("DEFINED", "METHOD = MethodSpec('matching', MatchingSettings)"): "mine.py:METHOD is a MethodSpec, and a method",
    ("DEFINED", "METHOD = Method(MethodSpec('matching'), losses)"): "losses asks for 'matching_power', which the "
    "MethodSpec does not declare: declare it in MethodSettings",
    ("MatchingSettings(WeightSettings)", "MatchingSettings(MethodSettings)"): "losses asks for 'ce_weight', which the "
    "MethodSpec does not declare: inherit the settings from WeightSettings",
    (SIGNATURE, f"{SIGNATURE}, temperature: float"): "losses asks for 'temperature', which the MethodSpec does not "
    "declare: declare it in MatchingSettings, or add it to trial_fields",
    (SIGNATURE, SIGNATURE.removeprefix("*, ")): "losses must have the form losses(outputs, labels, *, ...)",
    (SIGNATURE, f"{SIGNATURE}, **others"): "losses must have the form losses(outputs, labels, *, ...)",
    (SETTING, "matching_power: float"): "field 'matching_power' of MatchingSettings has no default: give one",
    (SETTING, f"{SETTING}\n    dkd_alpha: float = 3.0"): "field 'dkd_alpha' of MatchingSettings differs from the "
    "field of that name of another method: rename it",
    (SETTING, f"{SETTING}\n    epochs: int = 3"): "every trial has a field 'epochs', so rename the setting",
    (SETTING, f"{SETTING}\n    status: str = ''"): "every record has a column 'status', so rename the setting",
    (SETTING, f"{SETTING}\n    sizes: tuple[int, ...] = ()"): "the setting 'sizes' of MatchingSettings has the type "
    "tuple[int, ...], and settings are bool, int, float, str or a Literal of strings",
    (SETTING, f"{SETTING}\n    other: float | None = None"): "has the type float | None, and settings are",
    ('{"matching_power": 1.5, "kd_weight": 0.1}', '{"temperature": 2.0}'): "has a published value of 'temperature', "
    "which the method does not read",
    ("MatchingSettings, published", "MatchingSettings, frozenset({'tau'}), published"): "trial_fields contains 'tau'",
    ("losses)\n", "losses, closed_form=lambda **values: None)\n"): "its gradients are computed by autograd",
    ("losses)\n", "losses, parts=3)\n"): "parts is a int, which cannot be called",
    ("losses)\n", "losses, parts=lambda setting, size: None)\n"): "parts must have the form parts(setting, *, ...): 1",
    ("import Field", "import Feeld"): "cannot import name 'Feeld'",
}  # fmt: skip


@pytest.mark.parametrize(("change", "reason"), REFUSED.items(), ids=range(len(REFUSED)))
def test_what_is_no_method_is_refused_with_the_reason(change, reason, tmp_path):
    old, new = change
    old = DEFINED if old == "DEFINED" else old
    assert METHOD.count(old) == 1
    text = METHOD.replace("import MethodSpec, WeightSettings", "import MethodSettings, MethodSpec, WeightSettings")
    name = named(tmp_path, text.replace(old, f"{new}\n" if old == DEFINED else new))
    with pytest.raises(UserCodeError) as refused:
        own_spec(name)
    assert reason in str(refused.value)
    with pytest.raises(ValidationError):
        TrialConfig(method=name)
