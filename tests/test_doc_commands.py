"""Every command of the documentation runs. Commands that a test cannot run completely are run as far as possible."""

import re
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from analysis.report.__main__ import main as report_command
from study.cluster_files.__main__ import main as cluster_files_command
from study.confirm import main as confirm_command
from study.export import main as export_command
from study.launch import main as launcher
from study.power import main as power_command
from study.rerun import main as rerun_command
from study.sync import main as sync_command
from tests.doc_blocks import ROOT, blocks, commands_of
from tests.study.typed import plan_of
from tests.trainables.data.conftest import random_images, write_images
from tests.trainables.text.pretrained import fine_tuned
from trainables.data.text.tokeniser import train_tokeniser
from trainables.models import CheckpointInfo, build_model, save_model
from trainables.teacher.command import main as teacher_command

# Tutorials run in full, and these pages have tests of their own.
OTHERS = (
    "docs/tutorials/",
    "docs/how_to/own_",
    "docs/how_to/deploy.md",
    "docs/how_to/python.md",
    "docs/reference/config_file.md",
)
LAUNCHES = commands_of("study.launch", without=(*OTHERS, "docs/results/"))
RECORDED = [each for each in commands_of("study.launch", without=OTHERS) if each not in LAUNCHES]
CONFIRMS = commands_of("study.confirm", without=OTHERS)
POWERS = commands_of("study.power", without=OTHERS)
EXPORTS = commands_of("study.export", without=OTHERS)
RERUNS = commands_of("study.rerun", without=OTHERS)
TEACHERS = commands_of("trainables.teacher", without=OTHERS)
SYNCS = commands_of("study.sync", without=OTHERS)
REPORTS = commands_of("analysis.report", without=OTHERS)
FILES = commands_of("study.cluster_files", without=OTHERS)
COMMANDS = [each for block in blocks() if block.kind == "console" for each in block.commands]
MAKES = sorted({each.split()[1] for each in COMMANDS if each.startswith("make ")} | {"ui", "check", "help", "docs"})


def test_the_documentation_has_commands_to_run():
    assert len(LAUNCHES) >= 20
    assert min(map(len, (CONFIRMS, POWERS, EXPORTS, RERUNS, TEACHERS, SYNCS, REPORTS, RECORDED))) > 0


@pytest.mark.parametrize("arguments", LAUNCHES, ids=" ".join)
def test_a_launch_in_the_documentation_is_understood(arguments, command, in_process_study, tmp_path, monkeypatch):
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
def test_a_confirmation_of_the_documentation_is_understood(arguments, command, in_process_study):
    place = ("--dry-run", "--output-dir", in_process_study.parent)
    done = command(confirm_command, in_process_study.name, *arguments[1:], *place)
    assert done.code == 0, done.said
    assert "choice 1: " in done.said


def test_exports_and_reruns_of_the_documentation_are_understood(command, in_process_study):
    place = ("--output-dir", str(in_process_study.parent))
    for arguments in EXPORTS:  # without a confirmation; tests/study/test_export.py runs whole exports
        done = command(export_command, in_process_study.name, *arguments[1:], *place)
        assert done.code == 2, done.said
        assert "has no confirmation" in done.said
    for arguments in RERUNS:
        done = command(rerun_command, f"{in_process_study.name}-0000", *arguments[1:], *place)
        assert "small-0000 (w" in done.said, done.said


@pytest.mark.parametrize("arguments", SYNCS, ids=" ".join)
def test_a_delivery_of_the_documentation_is_made(arguments, command, in_process_study):
    done = command(sync_command, in_process_study.name, *arguments[1:], "--output-dir", in_process_study.parent)
    assert done.code == 0, done.said


def test_cluster_files_of_the_documentation_are_printed(command):
    assert len(FILES) == 3
    for name, redirected, _ in FILES:
        assert redirected == ">"
        done = command(cluster_files_command, name)
        assert done.code == 0, done.said
        assert "python -m study.launch" in done.out or "study.launch" in done.out


@pytest.mark.parametrize("arguments", REPORTS, ids=" ".join)
def test_a_report_of_the_documentation_is_written(arguments, command, in_process_study, tmp_path):
    page = tmp_path / "page.html"
    options = ("--output-dir", str(in_process_study.parent), "--out", str(page))
    done = command(report_command, in_process_study.name, *arguments[1:], *options)
    assert done.code == 0, done.said
    assert page.read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


@pytest.mark.parametrize("arguments", TEACHERS, ids=" ".join)
def test_a_teacher_of_the_documentation_is_understood(arguments, command, tmp_path):
    done = command(teacher_command, *arguments, "--dry-run", "--output-dir", str(tmp_path / "out"))
    assert done.code == 0, done.said
    assert "trains" in done.said
    assert not (tmp_path / "out").exists()


def test_the_smoke_study_of_the_documentation_runs(launch, tmp_path):
    """Runs in a new process without imports, in an empty folder, as right after an installation."""
    arguments = ("--space", "adapter_width", "--smoke", "--name", "smoke", "--output-dir", tmp_path)
    done = launch(*arguments, forks=False, timeout=500)
    assert done.returncode == 0, done.stderr
    assert "trials    5 finished" in done.stdout


@pytest.mark.launcher
def test_the_page_on_teacher_outputs_has_the_numbers_of_the_default_preview(command, tmp_path):
    shown = command(launcher, "--space", "adapter_width", "--dry-run", "--output-dir", tmp_path).out
    size, passes = re.search(r"at most ([\d.]+)MiB .*?; (\d+) teacher passes", shown).groups()
    page = " ".join((ROOT / "docs/how_to/teacher_outputs.md").read_text(encoding="utf-8").split())
    assert f"{size} MiB for the default study, and {passes} passes" in page


@pytest.mark.launcher
@pytest.mark.parametrize("target", MAKES)
def test_a_make_target_in_the_documentation_exists(target):
    done = subprocess.run(["make", "-n", target], cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize(
    "block",
    [each for each in blocks() if each.kind == "python" and not each.reason and not each.page.startswith(OTHERS)],
    ids=lambda block: block.page,
)
def test_python_of_the_documentation_works(block, in_process_study, tmp_path, monkeypatch, tables_made_once):
    if "logit_matching" in block.text or "LogitMatching" in block.text:
        return  # tests/trainables/methods/test_new_method.py runs this example
    monkeypatch.chdir(tmp_path)
    script = re.sub(r"study_results/(NAME|A)\b", str(in_process_study), block.text)
    script = script.replace("study_results/B", str(ROOT / "analysis" / "examples" / "fashion-gap"))
    with tables_made_once():
        exec(script, {})


@pytest.mark.parametrize("arguments", POWERS, ids=" ".join)
def test_a_power_of_the_documentation_is_computed(arguments, command, in_process_study):
    place = ("--output-dir", in_process_study.parent)
    done = command(power_command, in_process_study.name, *arguments[1:], *place)
    assert done.code == 0, done.said


@pytest.mark.parametrize("arguments", RECORDED, ids=lambda arguments: " ".join(arguments)[:60])
def test_a_command_of_a_recorded_study_gives_a_plan(arguments, tmp_path, data_root):
    """The results themselves are compared with the records in tests/analysis/."""
    plan = plan_of([*arguments, "--data-root", str(data_root)], tmp_path)
    assert plan.space == arguments[arguments.index("--space") + 1]


def test_programs_and_scripts_that_the_documentation_names_exist():
    from importlib.metadata import entry_points

    programs = {each.name for each in entry_points(group="console_scripts")}
    assert {"optuna-dashboard", "mlflow", "pesfkd"} <= programs
    scripts = {word for each in COMMANDS for word in each.split() if word.endswith(".py") and "/" in word}
    assert [name for name in scripts if not (ROOT / name).is_file()] == []
    notebooks = {word for each in COMMANDS for word in each.split() if word.startswith("analysis/notebooks/")}
    assert len(notebooks) == 2


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
