"""Studies with several processes per trial, run for real."""

from pathlib import Path

import psutil
import pytest

from study.cli.start_command import start_command
from study.launch import main
from study.plan.resolve import load_plan
from study.records import read_epochs, read_trials
from tests.forking_workers import OWN_SERVER
from tests.study.factories import make_plan
from tests.study.inspection import assert_whole, read_journal, runs_of
from tests.study.processes import kill, start_study, wait_in_study
from trainables.process.errors import UsageError


def epochs_in(directory: Path) -> int:
    path = directory / "journal.jsonl"
    return sum(event["event"] == "epoch" for event in read_journal(path)[0]) if path.exists() else 0


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"pack": 4}, "either packed or has several workers"),
        ({"gpus_per_trial": 0.25}, "each worker of a trial uses one GPU"),
        ({"gpus_per_trial": 2}, "each worker of a trial uses one GPU"),
        ({"base": {"batch_size": 1}}, "2 workers cannot share a batch of 1 samples"),
        ({"workers_per_trial": 0}, "greater than or equal to 1"),
    ],
)
def test_what_cannot_have_workers_is_refused_before_any_work(values, says, tmp_path):
    with pytest.raises(UsageError, match=says):
        make_plan(tmp_path, **{"workers_per_trial": 2, **values})


def test_how_many_workers_there_are_is_no_part_of_what_a_study_is(tmp_path):
    one = make_plan(tmp_path)
    two = make_plan(tmp_path, study_id=one.study_id, workers_per_trial=2)
    assert one.digest == two.digest
    assert "--workers-per-trial 2" in start_command(two)
    assert "--workers-per-trial" not in start_command(one)


def test_a_dry_run_says_how_many_workers_a_trial_has(launch, tmp_path):
    done = launch("--space", "adapter_width", "--workers-per-trial", "2", "--dry-run", "--output-dir", tmp_path)
    assert "2 data-parallel workers per trial, each with these resources" in done.stdout, done.stderr


@pytest.mark.slow
def test_trials_of_two_workers_find_what_lone_ones_find(launch, command, output_dir):
    study = (
        "--space", "adapter_width", "--trials", "2", "--promising", "1", "--replicates", "1", "--epochs", "2",
        "--sampler", "random", "--precision", "fp32", "--output-dir", output_dir,
    )  # fmt: skip
    alone = command(main, *study, "--name", "workers-alone", "--executor", "in-process")
    assert alone.code == 0, alone.said
    shared = launch(*study, "--name", "workers-shared", "--workers-per-trial", "2", timeout=500)
    assert shared.returncode == 0, shared.stderr
    accuracies = []
    for name, workers in (("alone", "1"), ("shared", "2")):
        directory = output_dir / f"workers-{name}"
        assert_whole(directory)
        assert set(read_epochs(directory)["cost/workers"].to_pylist()) == {float(workers)}
        parent, _ = runs_of(load_plan(directory))
        assert parent.data.tags["workers_per_trial"] == workers
        rows = read_trials(directory).to_pylist()
        accuracies.append({row["config_id"]: row["val/loss"] for row in rows if row["stage"] in ("search", "control")})
    assert accuracies[0].keys() == accuracies[1].keys()
    assert accuracies[1] == {name: pytest.approx(value, rel=1e-2) for name, value in accuracies[0].items()}


@pytest.mark.slow
def test_a_worker_and_a_driver_killed_cost_no_trial_and_one_process_can_go_on(output_dir, command):
    directory = output_dir / "workers-killed"
    process = start_study(
        "--space", "adapter_width", "--trials", "1", "--promising", "1", "--replicates", "1", "--epochs", "60",
        "--name", directory.name, "--output-dir", output_dir, "--workers-per-trial", "2",
        **OWN_SERVER,
    )  # fmt: skip
    wait_in_study(process, lambda: epochs_in(directory) >= 3)
    fellows = [c for c in psutil.Process(process.pid).children(recursive=True) if "TrialWorker" in str(c.cmdline())]
    assert len(fellows) == 1
    fellows[0].kill()
    before = epochs_in(directory)
    wait_in_study(process, lambda: epochs_in(directory) >= before + 20)
    assert "failed" not in kill(process)
    done = command(
        main, "--resume", directory.name, "--output-dir", output_dir, "--workers-per-trial", "1",
        "--executor", "in-process",
    )  # fmt: skip
    assert done.code == 0, done.said
    assert_whole(directory)
    assert set(read_epochs(directory)["cost/workers"].to_pylist()) == {1.0, 2.0}
