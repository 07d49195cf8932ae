"""What many tests share: a real small study, and real data where there is any."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

Launch = Callable[..., subprocess.CompletedProcess[str]]


def run_launcher(*arguments: str | Path, timeout: float = 240, **environment: str) -> subprocess.CompletedProcess[str]:
    """The real command line in a process of its own."""
    return subprocess.run(
        [sys.executable, "-m", "study.launch", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=timeout,
        env={**os.environ, "COLUMNS": "120", **environment},
        check=False,
    )


@pytest.fixture(scope="session")
def launch() -> Launch:
    return run_launcher


@pytest.fixture(scope="session")
def output_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One output folder for the studies of a test run: they share a teacher and an MLflow store."""
    return tmp_path_factory.mktemp("study_results")


@pytest.fixture(scope="session")
def small_study_run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """A study that the real launcher ran, alone in its output folder: its folder, its JSON result, its stderr."""
    output_dir = tmp_path_factory.mktemp("small_study")
    done = run_launcher(
        "--space", "adapter_width", "--trials", "6", "--promising", "2", "--replicates", "2", "--epochs", "3",
        "--name", "small", "--output-dir", output_dir, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    return output_dir / "small", json.loads(done.stdout), done.stderr


@pytest.fixture(scope="session")
def small_study(small_study_run: tuple[Path, dict[str, Any], str]) -> Path:
    """The folder of a small study that the real launcher ran."""
    return small_study_run[0]


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """Answers of reference models; a test that needs them is skipped where there are none, unless they are required."""
    return _folder("PESFKD_GOLDEN_ROOT", "reference answers of the CIFAR models")


def _folder(variable: str, what: str) -> Path:
    value = os.environ.get(variable)
    if value and Path(value).is_dir():
        return Path(value)
    if os.environ.get("PESFKD_REQUIRE_DATA"):
        pytest.fail(f"{what} are required here: {variable} is {value!r}")
    pytest.skip(f"needs {what}: set {variable} to their folder")
