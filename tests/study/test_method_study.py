"""A comparison of methods, killed and resumed, in one process or on Ray."""

import json

import pytest

from study.launch import main as launch_main
from study.plan.resolve import load_plan
from study.records import read_trials
from tests.study.inspection import assert_whole, runs_of
from tests.study.processes import finished_before, kill, start_study, wait_for_trials

METHODS = ["ce", "kd", "dkd", "dist+adapter", "at"]


def start_and_kill(directory, *arguments, events):
    """Start a study and kill it when the journal has `events` events."""
    process = start_study(
        *arguments, "--executor", "in-process", "--name", directory.name, "--output-dir", directory.parent
    )
    wait_for_trials(process, directory, events)
    kill(process)


@pytest.mark.launcher
def test_methods_are_compared_on_equal_seeds_through_a_kill(output_dir, command):
    directory = output_dir / "methods"
    arguments = ("--space", "method", "--methods", ",".join(METHODS), "--replicates", "2", "--epochs", "3")
    start_and_kill(directory, *arguments, events=22)
    before = finished_before(directory)
    assert before
    other = command(launch_main, "--resume", "methods", "--output-dir", output_dir, "--methods", "ce,kd")
    assert other.code == 2
    assert "cannot be resumed with other methods" in other.err
    done = command(launch_main, "--resume", "methods", "--output-dir", output_dir, "--json")
    assert done.code == 0, done.err
    assert_whole(directory)
    after = finished_before(directory)
    assert {trial: after[trial] for trial in before} == before
    result = json.loads(done.out)
    assert result["trials"] == {"finished": 10, "pruned": 0, "failed": 0, "planned": 10}
    assert sorted(config["method"] for config in result["configs"]) == sorted(METHODS)
    for config in result["configs"]:
        assert config["accuracy"]["n"] == 2
        assert (config["against_baseline"] is None) == (config["method"] == "kd")
        assert (config["corrected_p"] is None) == (config["method"] == "kd")
    assert any("Published settings are for CIFAR-100" in note for note in result["notes"])
    rows = read_trials(directory).to_pylist()
    assert {row["test/accuracy"] for row in rows} == {None}
    for replicate in (1, 2):
        assert len({row["data_seed"] for row in rows if row["replicate"] == replicate}) == 1
    forwards = {row["method"]: row["cost/teacher_forwards"] for row in rows}
    assert forwards["at"] > 0
    assert forwards["kd"] == forwards["dkd"] == 0
    assert (directory / "figures" / "methods.png").exists()
    assert (directory / "figures" / "accuracy_against_cost.png").exists()
    parent, _ = runs_of(load_plan(directory))
    assert "| dist+adapter | 2 |" in parent.data.tags["mlflow.note.content"]
    assert "dist_with_adapter/val_accuracy" in parent.data.metrics


@pytest.mark.slow
def test_methods_are_tuned_equally_and_then_compared_through_a_kill(output_dir, launch):
    directory = output_dir / "methods-tuned"
    arguments = (
        "--space",
        "method_tuned",
        "--methods",
        "ce,kd,dist",
        "--trials",
        "2",
        "--searches",
        "1",
        "--replicates",
        "2",
    )
    start_and_kill(directory, *arguments, "--epochs", "2", events=10)
    done = launch("--resume", "methods-tuned", "--output-dir", output_dir, "--executor", "ray")
    assert done.returncode == 0, done.stderr
    assert_whole(directory)
    rows = read_trials(directory).to_pylist()
    assert sorted(row["method"] for row in rows if row["stage"] == "search") == ["ce", "ce", "dist", "dist", "kd", "kd"]
    assert sorted(row["method"] for row in rows if row["stage"] != "search") == ["ce", "ce", "dist", "dist", "kd", "kd"]
    assert "(Holm)" in done.stdout
    assert "search" in done.stdout
    assert "(baseline)" in done.stdout
