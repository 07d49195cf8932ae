"""What Tune keeps of ended trials."""

import json

import pytest
from ray.tune.experiment import Trial

from study.ledger.entry import with_shared_names
from study.running.callback import forget_results
from trainables.spec.trial import TrialConfig

pytestmark = pytest.mark.study


@pytest.fixture
def ended():
    settings = {"trial_id": "s-0003", "life": 2, "config": TrialConfig().model_dump(mode="json")}
    trial = Trial("anything", stub=True, trial_id="t3", config=settings)
    epochs = [{"epoch": epoch, "val/accuracy": 0.5} for epoch in range(1, 40)]
    trial.update_last_result({"trial_id": "t3", "epochs": epochs, "val/accuracy": 0.5, "epoch": 39, "done": True})
    return trial


def test_an_ended_trial_keeps_what_tune_asks_for_and_nothing_else(ended):
    before = len(ended.run_metadata.get_json_state())
    forget_results(ended)
    assert ended.last_result == {"trial_id": "t3", "done": True}
    assert ended.config == {"trial_id": "s-0003", "life": 2}
    assert "epochs" not in json.dumps(json.loads(ended.run_metadata.get_json_state()))
    assert len(ended.run_metadata.get_json_state()) < before / 4


def test_tune_has_no_further_copy_of_the_settings(ended):
    forget_results(ended)
    kept = [name for name, value in vars(ended).items() if isinstance(value, dict) and "config" in value]
    assert kept == []


def test_names_of_measures_are_shared_by_all_trials():
    first, second = (with_shared_names(json.loads('{"val/some_measure": 1.5}')) for _ in range(2))
    assert first == second == {"val/some_measure": 1.5}
    assert next(iter(first)) is next(iter(second))


def test_a_config_keeps_no_list_of_given_fields_and_equals_and_copies_as_before():
    config = TrialConfig(adapter_width=16)
    assert config.model_fields_set == set()
    assert config == TrialConfig(**config.model_dump())
    assert config.model_copy(update={"seed": 3}) == TrialConfig(adapter_width=16, seed=3)
    assert TrialConfig(**json.loads(config.model_dump_json())).config_id == config.config_id
