"""GPUs per trial in a plan: a number, or `auto`, which each run resolves."""

import pytest

from study.cli.preview import describe_plan, gpu_notes
from study.cli.start_command import start_command
from study.plan import gpus
from study.plan.gpu_notes import idle_note, largest_configs
from study.plan.gpus import may_use_gpus, planned_devices, share_of
from study.plan.resolve import load_plan
from tests.study.factories import compare, make_plan
from trainables.process.errors import UsageError


@pytest.mark.parametrize(
    ("given", "kept"),
    [("auto", "auto"), ("0", 0.0), (0, 0.0), ("0.25", 0.25), (".5", 0.5), ("3", 3.0), (1024, 1024.0), ("1e-4", 1e-4)],
)
def test_a_number_or_auto_is_taken(given, kept, tmp_path):
    plan = make_plan(tmp_path, gpus_per_trial=given)
    assert plan.gpus_per_trial == kept
    assert type(plan.gpus_per_trial) is type(kept)
    plan.save()
    assert load_plan(plan.directory).gpus_per_trial == kept
    assert may_use_gpus(plan.gpus_per_trial) == (kept != 0)


@pytest.mark.parametrize("given", ["Auto", "all", "", "-1", "nan", "inf", "1025", "0,5", "1 GPU", True, None, [1]])
def test_anything_else_is_refused_with_what_is_allowed(given, tmp_path):
    with pytest.raises(UsageError, match=r"--gpus-per-trial: give a number of GPUs from 0 to 1024, .* or auto"):
        make_plan(tmp_path, gpus_per_trial=given)


def test_auto_is_no_part_of_the_question(tmp_path):
    plan = make_plan(tmp_path)
    auto = plan.model_copy(update={"gpus_per_trial": "auto"})
    assert auto.digest == plan.digest
    assert "--gpus-per-trial auto" in start_command(auto)
    assert "--gpus-per-trial" not in start_command(plan)
    assert "a measured share of a GPU (auto) per trial" in describe_plan(auto, [])


def test_auto_contradicts_packing_as_a_number_does(tmp_path):
    with pytest.raises(UsageError, match="packed trials run only on CPUs: leave out --pack or --gpus-per-trial"):
        make_plan(tmp_path, gpus_per_trial="auto", pack=2)
    assert make_plan(tmp_path, gpus_per_trial="auto", workers_per_trial=2).workers_per_trial == 2


def test_precision_is_planned_for_the_devices_that_are_known(monkeypatch):
    monkeypatch.setattr(gpus, "count_gpus", lambda: 0)
    assert planned_devices("0", "local") == planned_devices(0.0, "local") == ("cpu",)
    assert planned_devices("0.5", "head:6379") == ("cuda",)
    assert planned_devices("auto", "local") == ("cpu",)
    assert planned_devices("auto", "head:6379") == ("cuda", "cpu")
    monkeypatch.setattr(gpus, "count_gpus", lambda: 2)
    assert planned_devices("auto", "local") == ("cuda",)


def test_so_many_trials_never_take_more_than_one_gpu_and_waste_less_than_ray_can_allocate():
    for trials in range(1, 100):
        units = round(share_of(trials) * 10_000)  # Ray counts in ten-thousandths
        assert trials * units <= 10_000 < trials * (units + 1)
        assert share_of(trials) == units / 10_000


def test_the_largest_configs_have_each_student_and_method_and_the_largest_sizes_of_the_search(tmp_path):
    searched = [
        {"field": "batch_size", "kind": "int", "low": 16, "high": 128},
        {"field": "student", "kind": "categorical", "choices": ["cnn_3_4", "cnn_8_16"]},
        {"field": "optimiser", "kind": "categorical", "choices": ["sgd", "adamw"]},
    ]
    plan = make_plan(tmp_path, search=searched)
    found = largest_configs(plan)
    assert {(config.student, config.method) for config in found} == {
        (student, method) for student in ("cnn_3_4", "cnn_8_16") for method in ("pesf_kd", "ce", "kd")
    }
    assert {config.batch_size for config in found} == {128}
    assert {config.optimiser for config in found} == {"adamw"}
    widest = next(each.high for each in plan.search_space.parameters if each.name == "adapter_width")
    assert {config.adapter_width for config in found if config.method == "pesf_kd"} == {widest}


def test_the_largest_configs_of_a_comparison_are_those_of_all_methods(tmp_path):
    plan = compare(tmp_path)
    assert [config.method for config in largest_configs(plan)] == [each.fields["method"] for each in plan.compared]


def test_gpus_that_a_study_does_not_use_are_named(tmp_path, monkeypatch):
    plan = make_plan(tmp_path)
    assert idle_note(plan, 0) == ""
    assert idle_note(plan, 1) == "1 GPU is idle: --gpus-per-trial auto uses it"
    assert idle_note(plan, 4) == "4 GPUs are idle: --gpus-per-trial auto uses them"
    packed = plan.model_copy(update={"pack": 4})
    assert idle_note(packed, 4) == "4 GPUs are idle: --gpus-per-trial auto, without --pack, uses them"
    monkeypatch.setattr("study.cli.preview.count_gpus", lambda: 2)
    assert "note       2 GPUs are idle: --gpus-per-trial auto uses them" in describe_plan(plan, [])
    for values in ({"gpus_per_trial": "auto"}, {"gpus_per_trial": 0.5}, {"address": "head:6379"}):
        assert gpu_notes(plan.model_copy(update=values)) == []
