"""Forked commands end, write and receive signals like commands in separately started processes."""

import signal
import subprocess
import sys

import pytest

from tests.conftest import start_process
from tests.forking import Forked, environment_of_server, environment_to_inherit, may_fork

pytestmark = pytest.mark.launcher


def both(*arguments):
    processes = [start_process(*arguments, forks=forks) for forks in (True, False)]
    assert [type(process) for process in processes] == [Forked, subprocess.Popen]
    return processes


@pytest.mark.parametrize(
    ("arguments", "code"),
    [(("--list-spaces",), 0), (("--space", "no-such-space"), 2), (("--help",), 0)],
    ids=lambda value: value[0] if isinstance(value, tuple) else str(value),
)
def test_a_forked_command_says_what_a_fresh_one_says(arguments, code):
    said = [(process.communicate(timeout=100), process.returncode) for process in both("study.launch", *arguments)]
    assert said[0] == said[1]
    assert said[0][1] == code
    assert any(said[0][0])


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL], ids=lambda number: number.name)
def test_a_forked_command_ends_by_a_signal(number):
    process = start_process("tests.sleeping")
    assert process.stdout is not None
    assert process.stdout.readline() == "asleep\n"
    assert process.poll() is None
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=0.1)
    process.send_signal(number)
    assert process.wait(timeout=100) == -number
    assert process.poll() == -number


def test_what_a_test_sets_is_not_in_the_environment_that_commands_are_forked_with(monkeypatch):
    monkeypatch.setenv("OF_A_TEST", "1")
    assert "OF_A_TEST" not in environment_of_server()
    assert not may_fork(environment_to_inherit())
    monkeypatch.delenv("OF_A_TEST")
    assert may_fork(environment_to_inherit())


def test_a_command_with_a_variable_that_a_library_may_have_read_is_started_afresh():
    process = start_process("study.launch", "--list-spaces", RAY_AUTH_MODE="token")
    assert isinstance(process, subprocess.Popen)
    assert process.args[:3] == [sys.executable, "-m", "study.launch"]
    assert process.communicate(timeout=100)[1] == ""
    assert process.returncode == 0
