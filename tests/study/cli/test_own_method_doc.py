"""Every file and every command in docs/how_to/own_method.md is understood."""

import re
import shlex
import tomllib
from pathlib import Path

import pytest

from study.launch import main as launcher
from tests.user_nets import new_process
from trainables.user_code.installed import GROUPS

pytestmark = pytest.mark.study

TEXT = (Path(__file__).parents[3] / "docs" / "how_to" / "own_method.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, flags=re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "console" for line in block.splitlines()]


@pytest.fixture(autouse=True)
def _folder(tmp_path, monkeypatch):
    for kind, block in BLOCKS:
        if kind == "python":
            name = re.match(r"# (\w+\.py)\n", block)[1]
            (tmp_path / name).write_text(block, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    with new_process():
        yield


@pytest.mark.parametrize("line", [line for line in COMMANDS if "study.launch" in line])
def test_a_command_is_understood(line, command, tmp_path):
    done = command(launcher, *shlex.split(line)[3:], "--dry-run", "--output-dir", tmp_path / "out")
    assert done.code == 0, done.said
    assert re.search("my_method(.py:METHOD@|-)[0-9a-f]{6}", done.out)


def test_the_method_is_sound_and_its_check_is_a_command():
    from trainables.conformance.case import small_config
    from trainables.data.registry import dataset_info
    from trainables.methods.registry import METHODS
    from trainables.run.shape_check import check_method
    from trainables.user_code.loading import canonical_name

    name = canonical_name("my_method.py:METHOD")
    check_method(small_config(method=name), dataset_info("digits"), flag="--method")
    assert METHODS[name].spec.published == {"kd_weight": 0.1}
    assert len(COMMANDS) == 4
    assert COMMANDS[0] == "python -m study.check my_method.py:METHOD"


def test_the_groups_are_those_of_the_code():
    (block,) = (block for kind, block in BLOCKS if kind == "toml")
    assert set(tomllib.loads(block)["project"]["entry-points"]) <= set(GROUPS.values())
