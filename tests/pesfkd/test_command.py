"""The program `pesfkd`: help on one screen, one style of errors, and the commands."""

import json
import os
import subprocess
import sys
import webbrowser
from pathlib import Path

import pytest

from analysis.report.__main__ import main as report_main
from pesfkd.command import COMMON, app, main
from study.launch import main as launch_main
from study.plan.options import OPTIONS
from tests.study.inspection import assert_whole
from trainables.teacher.command import main as teacher_main

PROGRAM = Path(sys.executable).with_name("pesfkd")
COMMANDS = [each.name for each in app.registered_commands]


def test_every_command_of_the_issue_is_there():
    assert COMMANDS == [
        "run", "resume", "confirm", "report", "power", "export", "rerun", "sync", "teacher", "list", "open", "check",
    ]  # fmt: skip


@pytest.mark.parametrize("arguments", [(), *((name,) for name in COMMANDS)], ids=" ".join)
def test_the_help_fits_one_screen_with_examples_first(command, arguments):
    shown = command(main, *arguments, "-h").out.rstrip("\n").split("\n")
    assert len(shown) <= 23  # a prompt comes after it
    assert max(map(len, shown)) <= 80
    text = "\n".join(shown)
    parts = [text.index(part) for part in ("Usage: pesfkd", "  pesfkd ", "Options:")]
    assert parts == sorted(parts)
    assert command(main, *arguments, "--help").out.split() == text.split()


def test_without_a_command_the_help_is_shown(command):
    assert command(main).out == command(main, "-h").out


def test_the_short_help_of_a_study_has_ten_options_and_the_long_one_all_in_their_groups(command, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    assert len(COMMON) == 10
    short, full = (command(main, "run", flag).out for flag in ("-h", "--help-all"))
    for name, option in OPTIONS.items():
        shown = any(line.startswith(f"  {option.long_flag} ") for line in short.splitlines())
        assert shown == (name in COMMON), name
        if name not in ("resume", "retry_failed", "set_aside_records"):
            assert option.long_flag in full, name
            assert option.panel in full
    for name in COMMANDS:
        assert "Examples:" in command(main, name, "--help-all").out


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("run", "--space", "joint", "--trials", "many"), "error: --trials: Input should be a valid integer"),
        (("run", "--space", "joint", "--trials=many"), "error: --trials: Input should be a valid integer"),
        (("run", "--space", "joint", "--trails", "3"), "--trails: there is no such option; did you mean --trials?"),
        (("run", "--space", "joint", "--trials"), "error: --trials: requires an argument"),
        (("run", "--space", "joint", "--sampler", "grid"), "error: --sampler: 'grid' is not one of 'tpe', 'random'"),
        (("run", "--space", "joint", "--trials", "0"), "error: --trials: Input should be greater than or equal to 1"),
        (("run", "--space", "adapter_width", "--set", "temprature=3"), "did you mean 'temperature'"),
        (("run", "--space", "joint", "--teacher-epochs", "0"), "equal to 1 (given: '0')"),
        (("run", "--space", "joint", "--teacher-outputs-limit", "plenty"), "error: --teacher-outputs-limit: "),
        (("run",), "error: give --space (one of adapter_width"),
        (("run", "joint"), "error: got unexpected extra argument(s) (joint)"),
        (("rnu",), "error: rnu: there is no such command; did you mean run? (see pesfkd -h)"),
        (("resume",), "error: NAME is missing (see pesfkd resume -h)"),
        (("resume", "nothing"), "error: no study 'nothing' in study_results"),
        (("report", "nothing"), "error: there is no study 'nothing' under study_results"),
        (("power", "small", "--power", "3"), "error: --power 3: give a probability"),
        (("export", "nothing", "--format", "onx"), "error: --format: 'onx' is not one of 'onnx', 'torch-export'"),
        (("rerun", "nothing-0001"), "error: there is no trial 'nothing-0001'"),
        (("sync", "nothing"), "error: no study 'nothing'"),
        (("teacher", "--dataset", "digits"), "error: --model is missing (see pesfkd teacher -h)"),
        (("teacher", "--dataset", "digits", "--model", "cnn"), "error: --model"),
        (("list", "--output-dir", "nowhere"), "error: --output-dir nowhere: there is no such folder"),
        (("open", "nothing"), "error: there is no study 'nothing'"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_style_of_error_that_names_the_flag_as_typed(command, tmp_path, monkeypatch, arguments, says):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("pesfkd.command.restart_as_worker", lambda: None)
    done = command(main, *arguments)
    assert done.code == 2, done.said
    assert done.out == ""
    assert done.err.startswith(says) or says in done.err, done.err
    assert done.err.startswith("error: ")
    assert done.err.count("\n") <= 2
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("older", [launch_main, teacher_main, report_main])
def test_the_modules_report_mistakes_in_the_same_style(command, older):
    done = command(older, "--no-such-flag")
    assert done.code == 2
    assert done.err.startswith("error: --no-such-flag: there is no such option")


@pytest.mark.study
def test_a_study_is_run_resumed_listed_opened_and_reported(command, tmp_path, monkeypatch, tables_made_once):
    monkeypatch.chdir(tmp_path)
    tiny = ("--trials", "2", "--promising", "1", "--replicates", "1", "--epochs", "1", "--executor", "in-process")
    monkeypatch.setattr("sys.argv", ["pesfkd"])
    (tmp_path / "study.yaml").write_text("space: adapter_width\ntrials: 9\nname: one\n")
    done = command(main, "run", "--config", "study.yaml", *tiny, "--time-budget", "0.001")
    assert done.code == 4, done.said
    assert "no result yet" in command(main, "list").out or "incomplete" in command(main, "list").out
    assert command(main, "resume", "one", "--trials", "5").err.startswith("error: study 'one' cannot be resumed with")
    (tmp_path / "more.yaml").write_text("max_concurrent: 1\n")
    done = command(main, "resume", "one", "--json", "--config", "more.yaml")
    assert done.code == 0, done.said
    assert_whole(tmp_path / "study_results" / "one")
    summary = json.loads(done.out)
    (listed,) = json.loads(command(main, "list", "--json").out)
    assert (listed["name"], listed["trials"], listed["planned"], listed["complete"]) == ("one", 5, 5, True)
    assert listed["score"] == summary["best"]["score"]
    assert "one   adapter_width  digits   5/5     complete" in command(main, "list").out
    opened: list[str] = []
    monkeypatch.setattr(webbrowser, "open", lambda place: opened.append(place) or True)
    report = tmp_path / "study_results" / "one" / "report.html"
    report.unlink()
    assert command(main, "open", "one").out == "study_results/one/report.html\n"
    assert command(main, "open", "one", "--mlflow").out.startswith(f"{summary['runs']}\n(with the server")
    assert opened == [report.as_uri(), summary["runs"]]
    assert command(main, "open", "one", "--print").code == 0
    assert len(opened) == 2
    monkeypatch.setattr(webbrowser, "open", lambda place: False)
    assert "no browser was found" in command(main, "open", "one").err
    assert command(main, "report", "one").out == "study_results/one/report.html\n"


@pytest.mark.launcher
@pytest.mark.parametrize("arguments", [("-h",), ("run", "-h"), ("run", "--help-all")], ids=" ".join)
def test_help_imports_nothing_heavy(arguments):
    code = "import sys; from pesfkd.command import main\ntry:\n main()\nexcept SystemExit: pass\n"
    code += "heavy = ('torch', 'ray', 'mlflow', 'optuna', 'pandas', 'pyarrow', 'numpy', 'matplotlib')\n"
    code += "print('imported:', *(name for name in heavy if name in sys.modules))"
    done = subprocess.run(
        [sys.executable, "-c", code, *arguments], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.splitlines()[-1].strip() == "imported:"


@pytest.mark.launcher
def test_a_real_bash_completes_commands_and_options(tmp_path):
    """In a terminal, with the script that --show-completion prints: Tab twice lists what is possible."""
    script = tmp_path / "completion.sh"
    environment = {**os.environ, "_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    for shell in ("zsh", "fish", "bash"):
        shown = subprocess.run(
            [PROGRAM, "--show-completion", shell], capture_output=True, text=True, check=True, env=environment
        )
        assert "_PESFKD_COMPLETE" in shown.stdout
    script.write_text(shown.stdout)
    asked = f"source {script}; COMP_WORDS=({PROGRAM} {{words}}); COMP_CWORD={{at}}; _pesfkd_completion {PROGRAM}; "
    asked += 'printf "%s\\n" "${{COMPREPLY[@]}}"'
    for words, at, expected in (
        ("re", 1, {"resume", "report", "rerun"}),
        ("run --teacher-e", 2, {"--teacher-epochs"}),
        ("run --sampler c", 3, {"cmaes"}),
    ):
        done = subprocess.run(
            ["bash", "-c", asked.format(words=words, at=at)], capture_output=True, text=True, check=True,
            env={**os.environ, "PATH": f"{PROGRAM.parent}:{os.environ['PATH']}"},
        )  # fmt: skip
        assert set(done.stdout.split()) == expected, done.stderr
