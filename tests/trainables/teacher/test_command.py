"""The real command line, in separate processes where that matters."""

import io
import json
import shutil
import subprocess
import sys
from contextlib import redirect_stderr, redirect_stdout
from pathlib import Path

import pytest
import torch
from mlflow import MlflowClient
from torchvision.io import write_png

from tests.conftest import start_process
from tests.forking import Process
from tests.trainables.data.conftest import random_images, write_images
from trainables.data import image_progress
from trainables.models import CheckpointInfo, build_model, load_checkpoint, read_metadata
from trainables.run.checkpoint import CHECKPOINT_FILE
from trainables.storage.tensors import read_tensors, write_tensors
from trainables.teacher.card import accuracies
from trainables.teacher.command import main

pytestmark = pytest.mark.study

SMALL = ("--dataset", "digits", "--model", "cnn_8_16", "--recipe", "short", "--epochs", "4", "--no-mlflow")
FILES = {".lock", "README.md", "history.json", "settings.json", "teacher.safetensors"}


def start(*arguments: str | Path, **environment: str) -> Process:
    return start_process("trainables.teacher", *arguments, **environment)


def run(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command in this process, which has already imported torch."""
    words = ["teacher", *map(str, arguments)]
    with (
        pytest.MonkeyPatch.context() as patch,
        redirect_stdout(io.StringIO()) as out,
        redirect_stderr(io.StringIO()) as err,
    ):
        patch.setattr(sys, "argv", words)
        patch.setenv("COLUMNS", "120")
        with pytest.raises(SystemExit) as left:
            main()
    return subprocess.CompletedProcess(words, int(left.value.code or 0), out.getvalue(), err.getvalue())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """Return the folder of a teacher trained by the command, the JSON and the stderr."""
    output = tmp_path_factory.mktemp("output")
    done = run(*SMALL, "--output-dir", output, "--name", "small", "--json")
    assert done.returncode == 0, done.stderr
    return output / "teachers" / "small", json.loads(done.stdout), done.stderr


def test_a_teacher_comes_with_its_card_its_history_and_its_settings(trained):
    folder, result, said = trained
    assert {path.name for path in folder.iterdir()} == FILES
    _, metadata = read_tensors(folder / "teacher.safetensors")
    shares = accuracies(metadata)
    for split in ("validation", "test"):
        assert result[split]["accuracy"] == shares[split].value
        assert result[split]["n"] == 360
        assert result[split]["low"] < result[split]["accuracy"] < result[split]["high"]
        assert f"| {split} | {shares[split].value:.4f} |" in (folder / "README.md").read_text()
    history = json.loads((folder / "history.json").read_text())
    assert len(history) == 4
    assert history[-1]["val/accuracy"] == shares["validation"].value
    assert "[4/4] loss" in said
    assert "cosine" in said


def test_the_checkpoint_is_one_of_ours_and_has_the_accuracy_that_it_claims(trained, digits):
    folder, result, _ = trained
    info = CheckpointInfo.from_metadata(read_metadata(folder / "teacher.safetensors"))
    assert (info.architecture, info.num_classes, info.in_channels) == ("cnn_8_16", 10, 1)
    assert info.data_digest == digits.digest
    model = build_model(info.architecture, num_classes=info.num_classes, in_channels=info.in_channels).eval()
    load_checkpoint(model, folder / "teacher.safetensors")
    for split in ("validation", "test"):
        images = (getattr(digits, split).images / 255 - info.mean[0]) / info.std[0]
        right = (model(images).argmax(dim=1) == getattr(digits, split).labels).sum().item()
        assert right == pytest.approx(result[split]["accuracy"] * 360, abs=1.5)


def test_the_same_command_again_trains_nothing_and_says_the_same(trained):
    folder, result, _ = trained
    content = (folder / "teacher.safetensors").read_bytes()
    again = run(*SMALL, "--output-dir", folder.parents[1], "--name", "small", "--json")
    assert json.loads(again.stdout) == result
    assert "[4/4]" not in again.stderr
    assert (folder / "teacher.safetensors").read_bytes() == content


@pytest.mark.study
def test_the_cards_command_gives_the_same_weights(trained, tmp_path):
    folder, result, _ = trained
    assert result["command"] in (folder / "README.md").read_text()
    done = run(*result["command"].split()[3:], "--output-dir", tmp_path, "--no-mlflow", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["weights"] == result["weights"]


def test_another_request_under_the_same_name_is_refused_by_what_differs(trained):
    folder, _, _ = trained
    done = run(*SMALL, "--output-dir", folder.parents[1], "--name", "small", "--learning-rate", "0.1", "--seed", "3")
    assert done.returncode == 2
    assert "--learning-rate: the folder has 0.05, requested 0.1" in done.stderr
    assert "--seed: the folder has 0, requested 3" in done.stderr
    assert "--name" in done.stderr


def test_a_teacher_of_other_data_or_of_another_split_is_not_taken_for_this_one(trained, tmp_path):
    folder = tmp_path / "teachers" / "small"
    shutil.copytree(trained[0], folder)
    path = folder / "teacher.safetensors"
    tensors, metadata = read_tensors(path)
    write_tensors(path, tensors, metadata | {"data_digest": "0" * 64})
    content = path.read_bytes()
    done = run(*SMALL, "--output-dir", tmp_path, "--name", "small")
    assert done.returncode == 2
    assert f"trained on other data, or on another split of digits (digest {'0' * 16}, now" in done.stderr
    assert "--name" in done.stderr
    assert path.read_bytes() == content


@pytest.mark.launcher
def test_a_killed_training_ends_with_the_same_file_to_the_bit(tmp_path):
    command = (
        "--dataset", "digits", "--model", "cnn_8_16", "--epochs", "40", "--weight-decay", "0.001", "--no-mlflow",
        "--name", "killed",
    )  # fmt: skip
    straight = run(*command, "--output-dir", tmp_path / "straight", "--quiet")
    assert straight.returncode == 0, straight.stderr
    folder = tmp_path / "broken" / "teachers" / "killed"
    process = start(*command, "--output-dir", tmp_path / "broken")
    for line in process.stderr:
        if line.startswith("[3/40]"):
            break
    process.kill()
    process.communicate()
    assert (folder / "training" / CHECKPOINT_FILE).exists(), "it was over before it could be killed"
    assert not (folder / "teacher.safetensors").exists()
    done = run(*command, "--output-dir", tmp_path / "broken")
    assert done.returncode == 0, done.stderr
    assert "continuing after epoch" in done.stderr
    assert "[1/40]" not in done.stderr
    expected = tmp_path / "straight" / "teachers" / "killed" / "teacher.safetensors"
    assert (folder / "teacher.safetensors").read_bytes() == expected.read_bytes()
    assert {path.name for path in folder.iterdir()} == FILES
    assert len(json.loads((folder / "history.json").read_text())) == 40
    assert "divided by 10 after epochs 25, 30, 35" in done.stderr


@pytest.mark.launcher
def test_ctrl_c_ends_it_tidily_and_two_at_once_are_one_too_many(tmp_path):
    command = ("--dataset", "digits", "--model", "cnn_32_64", "--no-mlflow", "--output-dir", tmp_path, "--name", "n")
    process = start(*command)
    for line in process.stderr:
        if line.startswith("[1/240]"):
            break
    second = run(*command)
    assert second.returncode == 2
    assert "another process is using" in second.stderr
    process.terminate()
    said = process.communicate(timeout=240)[1]
    assert process.returncode == 130
    assert "run the same command to resume" in said
    assert "Traceback" not in said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--dataset", "digit"), "did you mean 'digits'"),
        (("--model", "resnet50"), "did you mean 'ResNet50'"),
        (("--model", "torchvision:resnet19"), "torchvision has no classifier 'resnet19'"),
        (("--recipe", "long"), "--recipe"),
        (("--learning-rate", "0"), "--learning-rate: Input should be greater than 0 (given: 0.0)"),
        (("--momentum", "1"), "--momentum: Input should be less than 1"),
        (("--batch-size", "0"), "--batch-size"),
        (("--epochs", "0"), "--epochs"),
        (("--weight-decay", "nan"), "--weight-decay"),
        (("--pretrained",), "published for torchvision:NAME and timm:NAME, not for cnn_3_4"),
        (("--device", "tpu"), "use cpu, cuda or cuda:N"),
        (("--precision", "fp8"), "did you mean 'fp32'"),
        (("--threads", "0"), "--threads"),
        (("--data-root", "/tmp/caf\udce9"), "--data-root '/tmp/caf\\udce9': '\\udce9' is no character of UTF-8"),
        (("--name", "../out"), "use 1 to 150 letters"),
        (("--tracking-uri", "http://127.0.0.1:9"), "no MLflow tracking server answers"),
    ],
)
def test_bad_input_is_refused_before_any_work(tmp_path, arguments, says):
    out = tmp_path / "out"
    # The last occurrence of an option counts.
    done = run("--dataset", "digits", "--model", "cnn_3_4", *arguments, "--output-dir", out)
    assert done.returncode == (1 if "--tracking-uri" in arguments else 2), done.stderr
    assert says in done.stderr
    assert "Traceback" not in done.stderr
    assert not out.exists()


@pytest.mark.parametrize("more", [(), ("--dry-run",)], ids=["run", "dry run"])
def test_a_network_that_cannot_take_the_images_is_refused_before_any_work(tmp_path, more):
    words = ("--dataset", "digits", "--model", "torchvision:densenet121", "--no-mlflow", "--output-dir")
    done = run(*words, tmp_path / "out", *more)
    assert done.returncode == 2
    assert "cannot take images of digits, 1 x 8 x 8: its maps shrink to nothing" in done.stderr
    assert "One that fits: --model torchvision:resnet18" in done.stderr
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "out").exists()


def test_a_training_that_diverges_fails_by_name(tmp_path):
    done = run(*SMALL, "--learning-rate", "1e30", "--output-dir", tmp_path)
    assert done.returncode == 1
    assert "epoch 1" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.study
def test_a_training_can_begin_with_published_weights(tmp_path, monkeypatch):
    from torchvision import models

    # The file that torchvision would download, in the cache.
    published = models.get_model("mobilenet_v3_small", weights=None)
    name = models.get_model_weights("mobilenet_v3_small").DEFAULT.url.rpartition("/")[2]
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    torch.save(published.state_dict(), tmp_path / "hub" / "checkpoints" / name)
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    folder = tmp_path / "train"
    for label in range(2):
        (folder / "train" / f"class-{label}").mkdir(parents=True)
        for number in range(12):
            pixels = torch.full((3, 32, 32), 100 * label + number, dtype=torch.uint8)
            write_png(pixels, str(folder / "train" / f"class-{label}" / f"{number}.png"))
    words = (
        "--dataset", f"image_folder:{folder}", "--model", "torchvision:mobilenet_v3_small", "--recipe", "short",
        "--epochs", "1", "--learning-rate", "1e-12", "--no-mlflow", "--output-dir", tmp_path, "--pretrained", "--json",
    )  # fmt: skip
    done = run(*words)
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    weights, metadata = read_tensors(Path(result["checkpoint"]))
    assert metadata["pretrained"] is True
    for key, value in published.named_parameters():
        if not key.startswith("classifier.3"):  # the head is new, because the classes differ
            torch.testing.assert_close(weights[f"backbone.{key}"], value.detach(), atol=1e-6, rtol=0)
    assert "--pretrained" in result["command"]


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_all_damaged_images_are_named_before_any_work_those_of_the_test_part_too(dry_run, tmp_path, monkeypatch):
    monkeypatch.setenv("PESFKD_CACHE", str(tmp_path / "cache"))
    for part in ("train", "test"):
        for label in range(2):
            write_images(tmp_path / "photos" / part / f"class-{label}", random_images(6, 3, 16, 16, seed=label))
    for name in ("train/class-0/001.png", "test/class-1/003.png"):
        (tmp_path / "photos" / name).write_bytes((tmp_path / "photos" / name).read_bytes()[:200])
    done = run("--dataset", f"image_folder:{tmp_path}/photos", *SMALL[2:], "--output-dir", tmp_path / "out", *dry_run)
    assert done.returncode == 2
    assert done.stderr == (
        f"error: --dataset: {tmp_path}/photos: 2 of 24 images cannot be used:\n"
        "  train/class-0/001.png: truncated\n"
        "  test/class-1/003.png: truncated\n"
        "Repair, convert or remove these files and start again.\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("quiet", [(), ("--quiet",)])
def test_the_progress_of_looking_through_images_is_shown_unless_it_is_not_wanted(quiet, tmp_path, monkeypatch):
    monkeypatch.setattr(image_progress, "_hidden", False)
    monkeypatch.setattr(image_progress, "_MANY", 10)
    for setting in ("_SECONDS_BEFORE_LINE", "_LEAST_SECONDS_LEFT"):
        monkeypatch.setattr(image_progress, setting, 0.0)
    monkeypatch.setenv("PESFKD_CACHE", str(tmp_path / "cache"))
    for label in range(2):
        write_images(tmp_path / "photos" / f"class-{label}", random_images(20, 3, 16, 16, seed=label))
    done = run("--dataset", f"image_folder:{tmp_path}/photos", *SMALL[2:], "--dry-run", *quiet)
    assert done.returncode == 0, done.stderr
    assert ("checking images: 1 of 40 done" in done.stderr) == (not quiet)
    assert not quiet or not done.stderr


def imported_by(*arguments: str | Path) -> set[str]:
    """Run the command in a new process and return the imported modules."""
    process = start(*arguments, PYTHONPROFILEIMPORTTIME="1")
    _, said = process.communicate(timeout=240)
    assert process.returncode == 0, said
    return {line.rsplit("|", 1)[-1].strip() for line in said.splitlines() if line.startswith("import time:")}


@pytest.mark.launcher
def test_a_dry_run_shows_the_recipe_tries_the_network_and_writes_nothing(tmp_path):
    words = (
        "--dataset",
        "cifar100",
        "--model",
        "MobileNetV2",
        "--epochs",
        "60",
        "--dry-run",
        "--output-dir",
        tmp_path / "o",
    )
    done = run(*words)
    assert "SGD at 0.01 (step, divided by 10 after epochs 38, 45, 53)" in done.stdout
    assert json.loads(run(*words, "--json").stdout)["milestones"] == [38, 45, 53]
    assert not (tmp_path / "o").exists()
    assert not imported_by(*words) & {"ray", "mlflow", "optuna", "sklearn", "torchvision"}


@pytest.mark.launcher
def test_help_answers_without_heavy_imports():
    imported = imported_by("--help")
    assert "typer" in imported
    assert not imported & {"torch", "ray", "mlflow", "optuna", "pyarrow", "sklearn"}


@pytest.mark.launcher
def test_a_training_without_mlflow_imports_no_ray_optuna_or_mlflow(tmp_path):
    imported = imported_by(*SMALL, "--output-dir", tmp_path, "--quiet")
    assert "torch" in imported
    assert not imported & {"ray", "mlflow", "optuna"}


@pytest.mark.study
def test_a_training_is_a_run_in_mlflow_also_when_it_was_over_before(tmp_path):
    words = [word for word in SMALL if word != "--no-mlflow"]
    place = ("--output-dir", tmp_path, "--name", "tracked")
    assert run(*words, *place, "--no-mlflow").returncode == 0
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    for _ in range(2):
        done = run(*words, *place, "--json")
        assert done.returncode == 0, done.stderr
        (found,) = client.search_runs([client.get_experiment_by_name("teachers").experiment_id])
        assert found.info.status == "FINISHED"
        assert found.data.params["learning_rate"] == "0.05"
        assert found.data.metrics["test_accuracy"] == json.loads(done.stdout)["test"]["accuracy"]
        history = client.get_metric_history(found.info.run_id, "val/accuracy")
        assert sorted(metric.step for metric in history) == [1, 2, 3, 4]
    assert {each.path for each in client.list_artifacts(found.info.run_id)} == {"README.md", "teacher.safetensors"}
