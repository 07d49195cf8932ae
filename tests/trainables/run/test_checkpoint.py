import json
from pathlib import Path

import pytest
import torch

from tests.trainables.conftest import small_config, without_costs
from tests.trainables.packing.runs import assert_same_state
from trainables.costs.epoch import run_epoch
from trainables.run.checkpoint import CHECKPOINT_FILE, CheckpointError, load_checkpoint, save_checkpoint
from trainables.run.run import DistillationRun
from trainables.steps.sgd import SCHEDULES
from trainables.storage.tensors import read_tensors, write_tensors
from trainables.teacher_outputs.frozen import FrozenTeacher

pytestmark = pytest.mark.study


@pytest.mark.parametrize("schedule", SCHEDULES)
def test_a_trial_resumed_after_any_epoch_equals_one_never_stopped(schedule, digits, teacher, tmp_path):
    student = "step" if schedule == "released" else schedule  # only an adapter has the released one
    config = small_config(student_schedule=student, adapter_schedule=schedule, epochs=4)
    straight = DistillationRun(config, digits, teacher)
    save_checkpoint(straight, tmp_path / "0")
    measures = []
    for epoch in range(1, 5):
        measures.append(without_costs(run_epoch(straight)))
        save_checkpoint(straight, tmp_path / str(epoch))
    for stopped_after in range(5):
        torch.manual_seed(stopped_after)  # earlier draws in the process must not matter
        resumed = DistillationRun(config, digits, teacher)
        load_checkpoint(resumed, tmp_path / str(stopped_after))
        assert resumed.epoch == stopped_after
        for epoch in range(stopped_after, 4):
            assert without_costs(run_epoch(resumed)) == measures[epoch]
        assert resumed.calibration == (straight.calibration if stopped_after < 4 else {})
        assert_same_state(resumed, straight, tolerance=0)


def test_a_run_that_went_on_can_be_taken_back_to_its_checkpoint(digits, teacher, tmp_path):
    run = DistillationRun(small_config(), digits, teacher)
    run_epoch(run)
    save_checkpoint(run, tmp_path)
    second = without_costs(run_epoch(run))
    load_checkpoint(run, tmp_path)
    assert run.epoch == 1
    assert without_costs(run_epoch(run)) == second


def test_a_checkpoint_is_one_file_which_the_next_one_replaces(digits, teacher, tmp_path):
    run = DistillationRun(small_config(), digits, teacher)
    for epoch in (1, 2):
        run.train_epoch()
        assert save_checkpoint(run, tmp_path) == tmp_path / CHECKPOINT_FILE
        assert [path.name for path in tmp_path.iterdir()] == [CHECKPOINT_FILE]
        assert read_tensors(tmp_path / CHECKPOINT_FILE)[1]["epoch"] == epoch


@pytest.fixture
def saved(digits, teacher, tmp_path) -> Path:
    run = DistillationRun(small_config(), digits, teacher)
    run.train_epoch()
    return save_checkpoint(run, tmp_path)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "gone"])
def test_a_damaged_checkpoint_is_refused_by_name_and_changes_nothing(damage, saved, digits, teacher):
    content = bytearray(saved.read_bytes())
    if damage == "flipped":
        content[-9] ^= 1
        saved.write_bytes(content)
    elif damage == "truncated":
        saved.write_bytes(content[:-1])
    else:
        saved.unlink()
    run = DistillationRun(small_config(), digits, teacher)
    with pytest.raises(CheckpointError, match=str(saved)):
        load_checkpoint(run, saved.parent)
    assert_same_state(run, DistillationRun(small_config(), digits, teacher), tolerance=0)


@pytest.mark.parametrize(
    "changes", [{"seed": 1}, {"temperature": 2.0}, {"adapter_width": 17}, {"method": "kd"}, {"epochs": 5}]
)
def test_a_checkpoint_of_another_trial_is_refused_by_name(changes, saved, digits, teacher):
    run = DistillationRun(small_config(**changes), digits, teacher)
    with pytest.raises(CheckpointError, match=f"{saved}.*another trial: its config has {next(iter(changes))} .*here"):
        load_checkpoint(run, saved.parent)


def test_a_checkpoint_that_names_the_fields_in_another_order_is_of_the_same_trial(digits, teacher, tmp_path):
    run = DistillationRun(small_config(), digits, teacher)
    path = save_checkpoint(run, tmp_path)
    tensors, metadata = read_tensors(path)
    config = json.loads(metadata["identity"]["config"])
    turned = json.dumps(dict(reversed(config.items())))
    assert turned != metadata["identity"]["config"]
    write_tensors(path, tensors, {**metadata, "identity": {**metadata["identity"], "config": turned}})
    load_checkpoint(run, tmp_path)


def test_a_checkpoint_with_another_teacher_is_refused(saved, digits, teacher):
    teacher.model.head.bias.add_(1.0)
    run = DistillationRun(small_config(), digits, FrozenTeacher(teacher.model))
    with pytest.raises(CheckpointError, match=f"{saved}.*its teacher has"):
        load_checkpoint(run, saved.parent)


def test_a_checkpoint_that_lacks_a_tensor_or_has_another_format_is_refused(saved, digits, teacher):
    tensors, metadata = read_tensors(saved)
    run = DistillationRun(small_config(), digits, teacher)
    write_tensors(saved, {k: v for k, v in tensors.items() if k != "adapter.module.w1.bias"}, metadata)
    with pytest.raises(CheckpointError, match=r"trial\.safetensors.*w1\.bias"):
        load_checkpoint(run, saved.parent)
    # The student's tensors were all present and fitted. They were not loaded either.
    assert_same_state(run, DistillationRun(small_config(), digits, teacher), tolerance=0)
    write_tensors(saved, tensors, metadata | {"format": "older"})
    with pytest.raises(CheckpointError, match="format is 'older'"):
        load_checkpoint(run, saved.parent)
