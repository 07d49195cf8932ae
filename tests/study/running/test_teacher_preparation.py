"""Training a study's teacher is shown, can be stopped, and can be resumed."""

import re
import signal

import pytest

from study.plan.resolve import load_plan
from study.records import read_trials
from tests.study.inspection import assert_whole
from tests.study.processes import start_study, wait_in_study
from trainables.storage.tensors import read_tensors


@pytest.mark.slow
def test_a_study_stopped_while_its_teacher_trains_goes_on_with_that_training(launch, tmp_path):
    process = start_study(
        "--space", "adapter_width", "--smoke", "--name", "stopped", "--teacher", "cnn_16_32",
        "--teacher-recipe", "literature", "--teacher-epochs", "60", "--output-dir", tmp_path,
    )  # fmt: skip
    wait_in_study(process, lambda: list(tmp_path.glob("teachers/*.training/*.safetensors")))
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=240)[1]
    assert process.returncode == 130, said
    (left,) = tmp_path.glob("teachers/*.training/*.safetensors")
    begun = read_tensors(left)[1]["epoch"]
    assert 1 <= begun < 60
    done = launch("--resume", "stopped", "--output-dir", tmp_path, "--executor", "in-process")
    assert done.returncode == 0, done.stderr
    assert_whole(tmp_path / "stopped")
    (teacher,) = tmp_path.glob("teachers/*.safetensors")
    assert read_tensors(teacher)[1]["recipe"]["name"] == "literature"
    assert not list(tmp_path.glob("teachers/*.training"))
    assert re.search(r"cnn_16_32, trained by recipe literature\s+for 60 epochs", done.stderr)
    trials = read_trials(tmp_path / "stopped")
    assert set(trials["teacher_epochs"].to_pylist()) == {60}
    assert load_plan(tmp_path / "stopped").base.teacher_recipe == "literature"
