"""Studies of text, by the real command lines: GLUE's files with sentences of ours, networks of one layer."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from study.launch import main
from tests.conftest import run_launcher
from tests.text_tasks import write_rte

TASK = ("--space", "adapter_width", "--dataset", "glue:rte")
NETS = ("--teacher", "bert_2_32", "--student", "bert:1")


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_rte(tmp_path_factory.mktemp("glue"))


def plan_of(command, root, *arguments):
    done = command(main, *TASK, "--data-root", root, *arguments, "--dry-run", "--json")
    assert done.code == 0, done.err
    return json.loads(done.out)["plan"]


def test_a_plan_of_text_shows_what_it_begins_with(command, root):
    plan = plan_of(command, root)
    base = plan["base"]
    assert (base["teacher"], base["student"], base["epochs"]) == ("bert_4_128", "bert_2_128", 3)
    assert (base["optimiser"], base["batch_size"], base["clip_norm"]) == ("adamw", 32, 1.0)
    assert base["teacher_epochs"] == 5
    given = plan_of(command, root, "--student", "bert:2", "--student-layers", "last", "--epochs", "2")["base"]
    assert (given["student"], given["student_layers"], given["epochs"]) == ("bert:2", "last", 2)
    assert given["student_learning_rate"] == 5e-5


def test_a_space_has_other_bounds_on_text_and_another_adapter(command, root):
    done = command(main, *TASK, "--data-root", root, "--dry-run")
    assert "adapter_learning_rate [1e-06, 0.001], log" in done.out
    configs = json.loads(command(main, *TASK, "--data-root", root, "--dry-run", "--json").out)["first_configs"]
    assert all(1e-6 <= config["adapter_learning_rate"] <= 1e-3 for config in configs)


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--method", "fitnet"), "method 'fitnet' matches maps"),
        (("--teacher", "no-such-bert"), "--teacher: there is no model 'no-such-bert' here"),
        (("--teacher-checkpoint", "/nowhere/model"), "--teacher-checkpoint: there is no folder /nowhere/model"),
        (("--pack", "4"), "packed trials are of images"),
        (("--dataset", "digits", "--student-layers", "last"), "--student-layers is for a student bert:N"),
        (("--dataset", "glue:stsb"), "regression"),
        (("--teacher", "bert_4_64", "--student", "bert:3"), "no 3 that are evenly spaced"),
    ],
)
def test_what_cannot_be_studied_is_refused_before_any_work(command, root, tmp_path, arguments, says):
    done = command(main, *TASK, "--data-root", root, *arguments, "--output-dir", tmp_path / "out")
    assert done.code == 2
    assert says in done.err
    assert not (tmp_path / "out").exists()


def test_a_study_of_images_imports_no_language_model():
    program = (
        "import sys, trainables.training, trainables.teacher, trainables.student_file;"
        "sys.exit(any(name in sys.modules for name in ('transformers', 'tokenizers')))"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


@pytest.mark.slow
def test_a_study_of_text_runs_confirms_and_keeps_a_student_that_reads_tokens(root, tmp_path):
    done = run_launcher(
        *TASK, *NETS, "--data-root", root, "--teacher-epochs", "1", "--smoke", "--confirm", "1", "--name", "text",
        "--output-dir", tmp_path, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert result["trials"]["failed"] == 0
    files = [path for path in (tmp_path / "text").rglob("*.safetensors") if "example" not in path.name]
    from trainables.student_file import load_kept

    assert load_kept(files[0]).images.shape[:2] == (2, 2)
    exported = run_launcher("text", "--output-dir", tmp_path, "--json", module="study.export")
    assert exported.returncode == 0, exported.stderr
    told = json.loads(exported.stdout)
    assert told["takes"] == ["batch", 2, "tokens"]
    session = onnxruntime.InferenceSession(told["file"])
    kept = load_kept(Path(told["file"]).with_suffix(".safetensors"))
    (logits,) = session.run(None, {"sentences": kept.images.numpy()})
    np.testing.assert_allclose(logits, kept.logits.numpy(), atol=1e-4)


@pytest.mark.slow
def test_a_teacher_is_trained_by_its_own_command_and_given_to_a_study(root, tmp_path):
    trained = run_launcher(
        "--dataset", "glue:rte", "--model", "bert_1_32", "--data-root", root, "--epochs", "2", "--name", "small",
        "--output-dir", tmp_path, "--no-mlflow", "--json", module="trainables.teacher",
    )  # fmt: skip
    assert trained.returncode == 0, trained.stderr
    checkpoint = json.loads(trained.stdout)["checkpoint"]
    card = Path(json.loads(trained.stdout)["card"]).read_text()
    assert "AdamW at 0.0005 (linear)" in card
    assert "tokeniser" in card
    done = run_launcher(
        *TASK, "--student", "bert:1", "--teacher-checkpoint", checkpoint, "--data-root", root, "--smoke",
        "--name", "given", "--output-dir", tmp_path, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["trials"]["failed"] == 0
