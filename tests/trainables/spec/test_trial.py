import hashlib
import math

import pytest
from pydantic import ValidationError

from trainables.spec.methods import METHOD_SPECS
from trainables.spec.trial import SEED_FIELDS, TrialConfig, derive_seed


def test_an_unknown_field_is_refused_naming_the_nearest_one():
    with pytest.raises(ValidationError, match="unknown field 'adapter_widht'; did you mean 'adapter_width'"):
        TrialConfig(adapter_widht=3)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("temperature", 0.0),
        ("temperature", math.nan),
        ("kd_weight", -0.1),
        ("student_momentum", 1.0),
        ("student_learning_rate", math.inf),
        ("adapter_kind", "sideways"),
        ("adapter_schedule", "sideways"),
        ("seed", -1),
        ("distance", "cosine"),
        ("label_smoothing", 1.0),
        ("gap_control", "imposed"),
        ("gap_target", math.nan),
        ("gap_weight", -1.0),
        ("dkd_beta", -1.0),
        ("warmup_epochs", -1),
        ("ttm_gamma", 0.0),
        ("ttm_gamma", 1.5),
        ("ctkd_temperature_start", 0.0),
        ("ctkd_curriculum_epochs", 0),
    ],
)
def test_a_value_out_of_its_bounds_is_refused_by_its_name(field, value):
    with pytest.raises(ValidationError, match=field):
        TrialConfig.model_validate({field: value})


@pytest.mark.parametrize(("field", "near"), [("method", "pesf_kd"), ("dataset", "digits"), ("student", "cnn_3_4")])
def test_an_unknown_name_is_refused_with_the_nearest_known_one(field, near):
    with pytest.raises(ValidationError, match=rf"unknown \w+ '{near}x'; did you mean '{near}'"):
        TrialConfig.model_validate({field: f"{near}x"})


def test_a_config_cannot_be_changed():
    with pytest.raises(ValidationError, match="frozen"):
        TrialConfig().epochs = 3


def test_the_id_of_a_config_ignores_its_seeds_and_nothing_else():
    config = TrialConfig()
    assert config.config_id == TrialConfig(seed=5, data_seed=6, teacher_number=2, split_number=3).config_id
    assert {"seed", "data_seed", "teacher_number", "split_number"} == SEED_FIELDS
    others = [TrialConfig(temperature=2.0), TrialConfig(split_seed=1), TrialConfig(teacher_seed=1)]
    assert len({config.config_id, *(other.config_id for other in others)}) == 4


def test_paired_configs_of_one_replicate_share_the_batches_and_the_first_weights():
    first = TrialConfig().with_seeds(study_seed=1, replicate=2)
    second = TrialConfig(temperature=2.0).with_seeds(study_seed=1, replicate=2)
    assert (first.data_seed, first.seed) == (second.data_seed, second.seed)
    for other in (TrialConfig().with_seeds(1, 3), TrialConfig().with_seeds(2, 2)):
        assert other.data_seed != first.data_seed
        assert other.seed != first.seed


def test_searched_configs_share_the_batches_and_not_the_first_weights():
    first, second = (
        config.with_seeds(study_seed=1, replicate=0, paired=False)
        for config in (TrialConfig(), TrialConfig(temperature=2.0))
    )
    assert first.data_seed == second.data_seed == TrialConfig().with_seeds(1, 0).data_seed
    assert len({first.seed, second.seed, TrialConfig().with_seeds(1, 0).seed}) == 3


def test_a_derived_seed_is_the_same_everywhere_and_has_63_bits():
    # Recorded once. Another value would give every recorded trial other random numbers.
    assert derive_seed("data", 1) == 5481811894547714582
    assert 0 <= derive_seed("x") < 2**63
    assert derive_seed("a", "b") != derive_seed("ab")


WITHOUT_ADAPTER = [name for name, spec in METHOD_SPECS.items() if not (spec.has_adapter or spec.takes_adapter)]


@pytest.mark.parametrize("method", WITHOUT_ADAPTER)
def test_an_adapter_for_a_method_that_takes_none_is_refused_with_the_reason_naming_those_that_do(method):
    reason = METHOD_SPECS[method].no_adapter
    assert reason
    with pytest.raises(ValidationError) as refusal:
        TrialConfig(method=method, adapter=True)
    assert f"'{method}' takes no adapter, because {reason}; adapter=True goes with" in str(refusal.value)
    for able in ("atkd", "dkd", "dtkd", "dist", "logit_standardisation", "ctkd", "ttm", "wttm", "nkd", "crd"):
        assert able in str(refusal.value)


def test_only_methods_without_an_adapter_have_a_reason_for_it():
    assert [name for name, spec in METHOD_SPECS.items() if spec.no_adapter] == WITHOUT_ADAPTER


def test_a_trial_knows_whether_it_has_an_adapter():
    assert TrialConfig(method="dkd", adapter=True).method_spec.has_adapter
    assert not TrialConfig(method="dkd").method_spec.has_adapter
    assert TrialConfig(method="pesf_kd").method_spec.has_adapter
    assert TrialConfig(method="pesf_kd", adapter=True).method_spec.has_adapter
    assert "adapter_width" in TrialConfig(method="dkd", adapter=True).method_spec.fields
    assert "adapter_width" not in TrialConfig(method="dkd").method_spec.fields


def test_the_id_of_a_config_is_the_digest_of_its_version_and_of_what_differs_from_the_defaults():
    def digest(fields: str) -> str:
        return hashlib.sha256(f'{{"fields": {{{fields}}}, "version": 2}}'.encode()).hexdigest()[:12]

    assert TrialConfig().config_id == digest('"teacher_epochs": 30')
    config = TrialConfig(method="dkd", dkd_beta=2, crd_dim=64, seed=3)  # dkd does not read crd_dim
    assert config.config_id == digest('"dkd_beta": 2.0, "method": "dkd", "teacher_epochs": 30')
    assert TrialConfig(method="crd", crd_dim=64).config_id != TrialConfig(method="crd").config_id


def test_configs_that_differ_in_what_they_read_have_different_ids():
    assert TrialConfig(method="ce", temperature=2.0).config_id != TrialConfig(method="ce").config_id  # for a measure
    controlled = [TrialConfig(gap_control="centred"), TrialConfig(gap_target=0.5), TrialConfig(gap_weight=2.0)]
    assert len({TrialConfig().config_id, *(each.config_id for each in controlled)}) == 4
    assert TrialConfig(method="dkd", adapter=True).config_id != TrialConfig(method="dkd").config_id


def test_a_trial_says_how_long_its_teacher_is_trained():
    assert TrialConfig().teacher_epochs == 30
    assert TrialConfig(teacher_recipe="literature").teacher_epochs == 240
    assert TrialConfig(teacher_epochs=7).teacher_epochs == 7
    assert TrialConfig(**TrialConfig().model_dump()) == TrialConfig()
    assert TrialConfig().config_id == TrialConfig(teacher_epochs=30).config_id


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"teacher_recipe": "checkpoint"}, "go together"),
        ({"teacher_digest": "0" * 16}, "go together"),
        ({"teacher_digest": "xyz"}, "pattern"),
        ({"teacher_recipe": "checkpoint", "teacher_digest": "0" * 16, "teacher_epochs": 3}, "not for one from"),
    ],
)
def test_a_teacher_is_trained_or_given_and_not_both(values, says):
    with pytest.raises(ValueError, match=says):
        TrialConfig(**values)


def test_what_differs_from_the_defaults_includes_settings_of_other_methods():
    assert TrialConfig().changed_fields == {"teacher_epochs": 30}
    assert TrialConfig(method="kd", gap_control="paper", seed=1).changed_fields == {
        "method": "kd", "teacher_epochs": 30, "gap_control": "paper", "seed": 1,
    }  # fmt: skip


@pytest.mark.parametrize(("method", "smallest"), [("dist", 2), ("pkt", 2), ("sp", 2), ("rkd", 3)])
def test_a_method_that_compares_samples_refuses_batches_with_nothing_to_compare(method, smallest):
    assert TrialConfig(method=method, batch_size=smallest).batch_size == smallest
    with pytest.raises(ValidationError, match=f"'{method}' compares the samples.*give batch_size {smallest} or more"):
        TrialConfig(method=method, batch_size=smallest - 1)


def test_a_one_cycle_schedule_of_one_epoch_is_refused_where_it_is_read():
    for values in ({"student_schedule": "one_cycle"}, {"adapter_schedule": "one_cycle"}):
        (field,) = values
        assert TrialConfig(**values, epochs=2).has_plain_steps
        with pytest.raises(ValueError, match=f"{field} 'one_cycle' ends at 1/250,000 of the learning rate, so nothing"):
            TrialConfig(**values, epochs=1)
    assert TrialConfig(method="kd", adapter_schedule="one_cycle", epochs=1)  # kd has no adapter
