"""Every command in the README runs. Commands that a test cannot run completely are run as far as possible."""

import re
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from analysis.report.__main__ import main as report_command
from study.cluster_files.__main__ import main as cluster_files_command
from study.confirm import main as confirm_command
from study.export import main as export_command
from study.launch import main as launcher
from study.rerun import main as rerun_command
from study.sync import main as sync_command
from tests.trainables.data.conftest import random_images, write_images
from tests.trainables.text.pretrained import fine_tuned
from trainables.data.text.tokeniser import train_tokeniser
from trainables.models import CheckpointInfo, build_model, save_model
from trainables.teacher.command import main as teacher_command

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```console\n(.*?)```", README, flags=re.DOTALL)
COMMANDS = [
    line.split("#")[0].strip() for block in BLOCKS for line in block.replace("\\\n", " ").splitlines() if line.strip()
]
LAUNCHES = [shlex.split(command)[3:] for command in COMMANDS if command.startswith("python -m study.launch")]
CONFIRMS = [shlex.split(command)[3:] for command in COMMANDS if command.startswith("python -m study.confirm")]
EXPORTS = [shlex.split(command)[3:] for command in COMMANDS if command.startswith("python -m study.export")]
RERUNS = [shlex.split(command)[3:] for command in COMMANDS if command.startswith("python -m study.rerun")]
TEACHERS = [shlex.split(command)[3:] for command in COMMANDS if command.startswith("python -m trainables.teacher")]
SYNCS = [shlex.split(command)[3:] for command in COMMANDS if command.startswith("python -m study.sync")]
REPORTS = [shlex.split(command)[3:] for command in COMMANDS if command.startswith("python -m analysis.report")]
FILES = [shlex.split(command)[3:] for command in COMMANDS if command.startswith("python -m study.cluster_files")]
MAKES = sorted({command.split()[1] for command in COMMANDS if command.startswith("make ")} | {"ui", "check", "help"})


def test_the_readme_has_commands_to_run():
    assert len(LAUNCHES) >= 6
    assert SYNCS
    assert COMMANDS[:2] == ["make study", "make test"]


@pytest.mark.parametrize("arguments", LAUNCHES, ids=" ".join)
def test_a_launch_in_the_readme_is_understood(arguments, command, in_process_study, tmp_path, monkeypatch):
    if "--resume" in arguments:
        place = ("--output-dir", in_process_study.parent, "--quiet")
        done = command(launcher, "--resume", in_process_study.name, *arguments[2:], *place)
        assert done.code == 0, done.said
        return
    if "--teacher-checkpoint" in arguments and "glue:sst2" in arguments:
        tokeniser = train_tokeniser(["a fine film", "a film that never ends"], vocabulary_size=60)
        known = SimpleNamespace(tokeniser=tokeniser, vocabulary_size=tokeniser.vocabulary_size)
        arguments = [*arguments, "--teacher-checkpoint", str(fine_tuned(tmp_path / "teacher", known))]
    elif "--teacher-checkpoint" in arguments:  # a teacher as trained by `python -m trainables.teacher`
        path = tmp_path / "teacher.safetensors"
        model = build_model("cnn_32_64", num_classes=10, in_channels=1)
        save_model(model, path, metadata=CheckpointInfo("cnn_32_64", 10, 1, (0.3,), (0.4,), "").to_metadata())
        arguments = [*arguments, "--teacher-checkpoint", str(path)]
    if any("image_folder:photos" in argument for argument in arguments):
        photos = random_images(10, 3, 240, 300)
        for name in ("cat", "dog"):
            write_images(tmp_path / "photos" / "train" / name, photos, kind="jpg")
        monkeypatch.chdir(tmp_path)
    # The last occurrence of an option counts. A dry run checks the whole plan and uses neither cluster nor server. It
    # runs in this process, because importing torch takes most of the time.
    done = command(launcher, *arguments, "--dry-run", "--output-dir", str(tmp_path / "out"))
    assert done.code == 0, done.said
    assert done.said
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("arguments", CONFIRMS, ids=" ".join)
def test_a_confirmation_of_the_readme_is_understood(arguments, command, in_process_study):
    place = ("--dry-run", "--output-dir", in_process_study.parent)
    done = command(confirm_command, in_process_study.name, *arguments[1:], *place)
    assert done.code == 0, done.said
    assert "choice 1: " in done.said


def test_exports_and_reruns_of_the_readme_are_understood(command, in_process_study):
    place = ("--output-dir", str(in_process_study.parent))
    for arguments in EXPORTS:  # without a confirmation; tests/study/test_export.py runs whole exports
        done = command(export_command, in_process_study.name, *arguments[1:], *place)
        assert done.code == 2, done.said
        assert "has no confirmation" in done.said
    for arguments in RERUNS:
        done = command(rerun_command, f"{in_process_study.name}-0000", *arguments[1:], *place)
        assert "small-0000 (w" in done.said, done.said


@pytest.mark.parametrize("arguments", SYNCS, ids=" ".join)
def test_a_delivery_of_the_readme_is_made(arguments, command, in_process_study):
    done = command(sync_command, in_process_study.name, *arguments[1:], "--output-dir", in_process_study.parent)
    assert done.code == 0, done.said


def test_cluster_files_of_the_readme_are_printed(command):
    assert len(FILES) == 3
    for name, redirected, _ in FILES:
        assert redirected == ">"
        done = command(cluster_files_command, name)
        assert done.code == 0, done.said
        assert "python -m study.launch" in done.out or "study.launch" in done.out


@pytest.mark.parametrize("arguments", REPORTS, ids=" ".join)
def test_a_report_of_the_readme_is_written(arguments, command, in_process_study, tmp_path):
    page = tmp_path / "page.html"
    options = ("--output-dir", str(in_process_study.parent), "--out", str(page))
    done = command(report_command, in_process_study.name, *arguments[1:], *options)
    assert done.code == 0, done.said
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("arguments", TEACHERS, ids=" ".join)
def test_a_teacher_of_the_readme_is_understood(arguments, command, tmp_path):
    done = command(teacher_command, *arguments, "--dry-run", "--output-dir", str(tmp_path / "out"))
    assert done.code == 0, done.said
    assert "trains" in done.said
    assert not (tmp_path / "out").exists()


def test_the_smoke_study_of_the_readme_runs(launch, tmp_path):
    """Runs in a new process without imports, in an empty folder, as right after an installation."""
    arguments = ("--space", "adapter_width", "--smoke", "--name", "smoke", "--output-dir", tmp_path)
    done = launch(*arguments, forks=False, timeout=500)
    assert done.returncode == 0, done.stderr
    assert "trials    5 finished" in done.stdout


@pytest.mark.launcher
@pytest.mark.parametrize("target", MAKES)
def test_a_make_target_in_the_readme_exists(target):
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_the_readme_s_reading_of_records_works(in_process_study):
    script = next(
        block for block in re.findall(r"```python\n(.*?)```", README, flags=re.DOTALL) if "pesfkd.open" in block
    )
    script = script.replace("study_results/NAME", str(in_process_study)) + "\nassert len(_) == 14\n"
    script = script.replace('pesfkd.open("', '_ = pesfkd.open("')
    exec(script, {})


def test_files_that_the_readme_names_exist():
    named = set(re.findall(r"`((?:[a-z_]+/)+[a-z0-9_]+\.py)`", README)) - {
        "search_spaces/NAME.py",
        "trainables/methods/logit_matching.py",  # the example of a new method, which has a separate test
    }
    assert named
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.launcher
def test_nothing_in_the_project_tells_where_it_was_built():
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=False).stdout.split()
    if not tracked:
        pytest.skip("not a git checkout")
    telling = re.compile(r"/(?:work|home|Users)/\w+/|\.\./shared")
    for name in tracked:
        if (
            name.startswith(".ci/")
            or name == Path(__file__).relative_to(ROOT).as_posix()
            or not (ROOT / name).is_file()
        ):
            continue
        found = telling.search((ROOT / name).read_text(encoding="utf-8", errors="replace"))
        assert found is None, f"{name}: {found and found[0]}"
