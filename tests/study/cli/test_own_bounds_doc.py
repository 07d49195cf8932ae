"""Every command and every file in docs/how_to/own_bounds.md is understood."""

import re
import shlex
from pathlib import Path

import pytest

from study.launch import main as launcher
from study.plan.bounds import FORMS, read_bounds
from tests.study.factories import make_plan
from tests.study.typed import plan_of
from trainables.spec.searchable import FIXED_IN_A_STUDY

TEXT = (Path(__file__).parents[3] / "docs" / "how_to" / "own_bounds.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w+)\n(.*?)```", TEXT, flags=re.DOTALL)
COMMANDS = [line for kind, block in BLOCKS if kind == "console" for line in block.splitlines()]
FILES = [(kind, block) for kind, block in BLOCKS if kind != "console"]


@pytest.mark.parametrize("line", COMMANDS)
def test_a_command_is_understood(line, command, tmp_path):
    words = shlex.split(line)
    assert words[:3] == ["python", "-m", "study.launch"]
    if "NAME" in line:
        plan = make_plan(tmp_path, name="NAME")
        plan.save()
        words = [word.replace("study_results", str(tmp_path)) for word in words]
    done = command(launcher, *words[3:], "--dry-run", "--output-dir", tmp_path)
    assert done.code == 0, done.said
    assert ("varies" in done.out) != ("--print-config" in words)


@pytest.mark.parametrize(("kind", "text"), FILES)
def test_a_file_is_understood(kind, text, tmp_path):
    path = tmp_path / f"study.{kind}"
    path.write_text(text, encoding="utf-8")
    plan = plan_of(["--config", str(path)], tmp_path)
    assert (plan.space, plan.trials, plan.executor) == ("none", 12, "in-process")
    assert plan.search[0].text == "temperature=1:32:log"
    assert len(plan.search) == text.count("[") - text.count("[search]") - text.count("[0, 1] alone") + text.count(
        '= "1:32'
    )


def test_the_forms_and_the_fields_are_those_of_the_code():
    for form in ("LOW:HIGH", "LOW:HIGH:log", "LOW:HIGH:STEP", "A,B,..."):
        assert f"`FIELD={form}`" in TEXT
        assert form in FORMS
    for field in FIXED_IN_A_STUDY:
        assert f"`{field}`" in TEXT or field.startswith("teacher") or "seed" in field or "number" in field
    assert read_bounds(["temperature=1:3:int"]) == read_bounds(["temperature=1:3:1"])
