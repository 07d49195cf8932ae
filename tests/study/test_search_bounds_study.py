"""A real study in one process that searches the student and other fields within bounds of its own."""

import json

import pytest

from analysis.report.folder import read_folder
from study.cli.request import existing_plan
from study.launch import main as launcher
from study.ledger.ledger import StudyLedger
from study.records import read_trials
from study.rerun import main as rerun_command

pytestmark = pytest.mark.study

ARGUMENTS = (
    "--space", "none", "--search", "student=cnn_3_4,cnn_4_6", "--search", "temperature=1:32:log",
    "--search", "batch_size=32:64:32", "--search", "augmentation=views,none", "--trials", "4", "--promising", "1",
    "--replicates", "1", "--confirm", "1", "--seeds", "2", "--epochs", "1", "--executor", "in-process",
)  # fmt: skip


@pytest.fixture(scope="module")
def studied(tmp_path_factory):
    return tmp_path_factory.mktemp("own_bounds")


def test_a_study_with_bounds_of_its_own_runs_and_its_trials_run_again(studied, command):
    place = ("--name", "own", "--output-dir", studied)
    done = command(launcher, *ARGUMENTS, *place, "--json")
    assert done.code == 0, done.said
    summary = json.loads(done.out)
    assert summary["question"].startswith("Which values of student, temperature, batch_size and augmentation")
    assert summary["log_fields"] == ["temperature"]
    trials = read_trials(studied / "own").to_pylist()
    found = [row for row in trials if row["stage"] == "search"]
    assert len(found) == 4
    assert {row["batch_size"] for row in found} <= {32, 64}
    assert all(1 <= row["temperature"] <= 32 for row in found)
    controls = {(row["method"], row["student"]) for row in trials if row["stage"] == "control"}
    assert controls == {(method, student) for method in ("ce", "kd") for student in ("cnn_3_4", "cnn_4_6")}
    (first,) = (row for row in summary["confirmation"]["configs"] if row["rank"] == 1)
    ledger = StudyLedger(existing_plan("own", studied), read_only=True)
    students = {choice.config_id: choice.config.student for choice in ledger.confirmation.choices}
    compared = [each for each in summary["confirmation"]["comparisons"] if each["config_id"] == first["config_id"]]
    assert {students[each["against"]] for each in compared} == {students[first["config_id"]]}
    assert f"-{students[first['config_id']]}/" in summary["confirmation"]["student"]["model"]
    names = {each.name: (each.low, each.high, each.log) for each in read_folder(studied / "own").searched}
    assert names["temperature"] == (1.0, 32.0, True)
    assert names["student"] == (None, None, False)
    page = (studied / "own" / "report.html").read_text(encoding="utf-8")
    assert "temperature 1 to 32 in logarithms, batch_size 32 to 64 in steps of 32" in page

    other = command(launcher, "--resume", "own", "--output-dir", studied, "--search", "temperature=1:16")
    assert other.code == 2
    assert "search: the study has student=cnn_3_4,cnn_4_6, temperature=1:32:log, batch_size=32:64:32" in other.said
    rerun = command(rerun_command, "own-0003", "--output-dir", studied)
    assert "all bits match" in rerun.said, rerun.said
