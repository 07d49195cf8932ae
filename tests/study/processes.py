"""Studies of the real launcher in the background, for tests that stop, kill or disturb them."""

import subprocess
import time
from collections.abc import Callable
from pathlib import Path

from study.records import read_trials
from tests.conftest import start_process
from tests.forking import Process
from tests.study.inspection import read_journal

STUDY = ("--space", "adapter_width", "--trials", "5", "--promising", "1", "--replicates", "2", "--epochs", "8")


def start_study(*arguments: str | Path, **environment: str) -> Process:
    """Start the launcher. Messages go to the process's `stderr`."""
    return start_process("study.launch", *arguments, stdout=subprocess.DEVNULL, **environment)


def start(name: str, output_dir: Path, *arguments: str, **environment: str) -> Process:
    """Start a study that takes some seconds."""
    return start_study(*STUDY, "--name", name, "--output-dir", output_dir, *arguments, **environment)


def start_without_ray(*arguments: str | Path, seconds_per_epoch: float = 0.1) -> Process:
    """Start the launcher with trials in the launcher's process and slower epochs."""
    words = (str(seconds_per_epoch), *arguments, "--executor", "in-process")
    return start_process("tests.study.slow_driver", *words, stdout=subprocess.DEVNULL)


def wait_in_study(process: Process, reached: Callable[[], object], timeout: float = 300) -> None:
    """Wait until `reached` returns True. Fail if the study ends before."""
    deadline = time.monotonic() + timeout
    while True:
        assert process.poll() is None, f"the study ended before: {process.communicate()[1]}"
        if reached():
            return
        assert time.monotonic() < deadline, "the study did not get that far"
        time.sleep(0.02)


def wait_for_trials(process: Process, directory: Path, events: int, timeout: float = 300) -> None:
    """Wait until the study's journal has `events` events, so that the study is running trials."""
    path = directory / "journal.jsonl"
    wait_in_study(process, lambda: path.exists() and len(read_journal(path)[0]) >= events, timeout)


def kill(process: Process) -> str:
    """Kill the driver and return the text on stderr."""
    process.kill()
    return process.communicate()[1]


def finished_before(directory: Path) -> dict[str, tuple]:
    """Return start, accuracy and seconds of each recorded trial. A resume must not change them."""
    return {
        row["trial_id"]: (row["started"], row["val/accuracy"], row["seconds"])
        for row in read_trials(directory).to_pylist()
    }
