"""Every command in docs/how_to/deploy.md is understood, and its tables are those of the code."""

import inspect
import re
import shlex
from pathlib import Path

import pytest

from pesfkd.handle import Study
from study.export import export
from study.launch import main as launcher
from trainables.spec.measures import DEPLOY_FACTS
from trainables.spec.quantities import LIMITED, QUANTITIES
from trainables.students import deployment
from trainables.students.int8 import CALIBRATION_IMAGES, CALIBRATION_SEED

pytestmark = pytest.mark.unit
TEXT = (Path(__file__).parents[3] / "docs" / "how_to" / "deploy.md").read_text(encoding="utf-8")
COMMANDS = [line for block in re.findall(r"```console\n(.*?)```", TEXT, flags=re.DOTALL) for line in block.splitlines()]


@pytest.mark.parametrize("line", [line for line in COMMANDS if "study.launch" in line])
def test_a_study_is_understood(line, command, tmp_path):
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "study.launch"]
    done = command(launcher, *words[3:], "--dry-run", "--output-dir", tmp_path)
    assert done.code == 0, done.said
    assert ("objectives Pareto front of:" in done.out) == ("--objectives" in words)
    assert ("limits " in done.out) == ("--limit" in words)
    measured = {"latency", "size", "flops"} & set(re.split(r"[ ,=]", line)) or "--latency" in words
    assert ("measures " in done.out) == bool(measured)


@pytest.mark.parametrize("line", [line for line in COMMANDS if "export" in line])
def test_an_export_has_the_options_of_the_command(line):
    flags = {word[2:].replace("-", "_") for word in shlex.split(line) if word.startswith("--")}
    assert flags <= inspect.signature(export).parameters.keys()
    assert {"int8", "max_drop", "threads"} <= inspect.signature(Study.export).parameters.keys()


def test_columns_units_and_counts_are_those_of_the_code():
    for name in DEPLOY_FACTS:
        assert name in TEXT or re.search(r"_(low_seconds|high_seconds|runs)$", name), name
    for name in LIMITED:
        assert f"`{name}`" in TEXT
        for unit in filter(None, QUANTITIES[name].units):
            assert f"`{unit}`" in TEXT or unit in ("µs", "KB", "K"), unit
    assert f"{CALIBRATION_IMAGES} training images" in TEXT
    assert f"drawn by seed {CALIBRATION_SEED}" in TEXT
    counts = (
        deployment.WARM_UP_RUNS, deployment.ROUNDS, deployment.SECONDS_OF_A_ROUND, deployment.RUNS_OF_A_ROUND,
    )  # fmt: skip
    found = re.search(r"After (\d+) warm-up runs, single runs .* (\d+) rounds of (0\.\d) s, at least (\d+) runs", TEXT)
    assert found is not None
    assert tuple(map(float, found.groups())) == counts
