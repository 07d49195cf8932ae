"""Studies that are really stopped, killed or made to fail."""

import json
import os
import pickle
import shutil
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

from study.launch import main as launch_main
from study.plan.resolve import load_plan
from study.records import read_trials
from study.sync import main as sync_main
from tests.forking_workers import OWN_SERVER
from tests.study.inspection import assert_whole, read_journal, runs_of
from tests.study.payload import Payload
from tests.study.processes import (
    STUDY,
    finished_before,
    kill,
    start,
    start_study,
    start_without_ray,
    wait_for_trials,
)
from tests.study.servers import free_port, listens, running

IN_PROCESS = ("--executor", "in-process")


@pytest.mark.fault
def test_a_study_killed_twice_finishes_each_trial_once(output_dir, launch):
    directory = output_dir / "killed"
    process = start_without_ray(*STUDY, "--name", "killed", "--output-dir", output_dir)
    wait_for_trials(process, directory, 28)
    kill(process)
    done_before = finished_before(directory)
    assert done_before
    resumed = start_without_ray("--resume", "killed", "--output-dir", output_dir)
    wait_for_trials(resumed, directory, 60)
    kill(resumed)
    done = launch("--resume", "killed", "--output-dir", output_dir)
    assert done.returncode == 0, done.stderr
    assert_whole(directory)
    after = finished_before(directory)
    assert {trial: after[trial] for trial in done_before} == done_before


@pytest.mark.fault
@pytest.mark.parametrize(
    ("told", "starts"), [(signal.SIGINT, start_study), (signal.SIGTERM, start_without_ray)], ids=["SIGINT", "SIGTERM"]
)
def test_a_study_that_is_told_to_stop_ends_tidily_and_prints_how_to_go_on(output_dir, launch, told, starts):
    name = f"told-by-{told.name.lower()}"
    directory = output_dir / name
    process = starts(*STUDY, "--name", name, "--output-dir", output_dir)
    wait_for_trials(process, directory, 15)
    process.send_signal(told)
    said = process.communicate(timeout=240)[1]
    assert process.returncode == 130, said
    command = f"python -m study.launch --resume {name} --output-dir {output_dir}"
    assert command in said
    _, children = runs_of(load_plan(directory))
    assert "RUNNING" not in {run.info.status for run in children}
    done = launch(*command.split()[3:])
    assert done.returncode == 0, done.stderr
    assert_whole(directory)


@pytest.mark.fault
def test_two_drivers_of_one_study_are_one_too_many(output_dir, launch):
    arguments = ("--trials", "1", "--replicates", "1", "--epochs", "4", "--name", "contended")
    # The first driver is slow enough to outlast the second. If it were stopped instead, it could hold the lock of
    # MLflow's store.
    process = start_without_ray(*STUDY, *arguments, "--output-dir", output_dir, seconds_per_epoch=3)
    wait_for_trials(process, output_dir / "contended", 1)
    second = launch("--resume", "contended", "--output-dir", output_dir)
    assert second.returncode == 2
    assert "is being run by another process" in second.stderr
    assert process.wait(timeout=200) == 0
    assert_whole(output_dir / "contended")


def test_trials_that_diverge_fail_by_name_and_the_study_goes_on(output_dir, launch):
    done = launch(
        "--space", "adapter_width", "--trials", "2", "--promising", "1", "--replicates", "1",
        "--epochs", "2", "--set", "student_learning_rate=1e30", "--name", "diverged", "--output-dir", output_dir,
        *IN_PROCESS,
    )  # fmt: skip
    assert done.returncode == 3, done.stderr
    assert "NonFiniteLossError" in done.stdout
    trials = read_trials(output_dir / "diverged")
    # Two trials of the search and the two controls. No config is promising, so none is repeated.
    assert trials["status"].to_pylist() == ["failed"] * 4
    assert all("epoch 1" in error and "batch" in error for error in trials["error"].to_pylist())
    _, children = runs_of(load_plan(output_dir / "diverged"))
    assert {run.info.status for run in children} == {"FAILED"}


@pytest.mark.fault
def test_asha_stops_trials_and_everyone_is_told(output_dir, launch):
    done = launch(
        "--space", "adapter_width", "--trials", "9", "--promising", "1", "--replicates", "1",
        "--epochs", "6", "--scheduler", "asha", "--name", "halved", "--output-dir", output_dir, *IN_PROCESS,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    directory = output_dir / "halved"
    assert_whole(directory)
    rows = read_trials(directory).to_pylist()
    pruned = [row for row in rows if row["status"] == "pruned"]
    assert pruned
    assert all(row["stage"] == "search" and row["epochs"] < 6 for row in pruned)
    assert all(row["epochs"] == 6 for row in rows if row["status"] == "finished")
    said = " ".join(done.stdout.split())
    assert f"{len(pruned)} were stopped early and are in it as they were then, so no survivor is selected" in said
    assert "Survivors only" not in said
    # The correlation includes all trials, at the last epoch that all reached.
    found = json.loads((directory / "summary.json").read_text())["gap_accuracy_correlation"]
    reached = min(row["epochs"] for row in rows if row["stage"] == "search")
    assert (found["trials"], found["epoch"], found["last_epoch"]) == (9, reached, 6)
    place = f"over the configs of the search, 9 trials at epoch {reached} of 6, the last that all reached (exploratory)"
    assert place in " ".join(done.stdout.split())
    parent, _ = runs_of(load_plan(directory))
    assert place in parent.data.tags["mlflow.note.content"]
    measured = parent.data.metrics
    assert (measured["gap_accuracy_correlation_trials"], measured["gap_accuracy_correlation_epoch"]) == (9, reached)


@pytest.mark.fault
def test_a_study_out_of_time_or_without_its_cluster_says_how_to_go_on_and_is_whole_in_the_end(output_dir, launch):
    directory, marker = output_dir / "bereft", output_dir / "ran"
    resumed = ["--resume", "bereft", "--output-dir", str(output_dir)]
    command = f"python -m study.launch {' '.join(resumed)}"
    done = launch(*STUDY, "--epochs", "20", "--name", "bereft", "--output-dir", output_dir, "--time-budget", "1")
    assert done.returncode == 4, done.stderr
    assert f"out of time (--time-budget 1); to go on:\n  {command}" in done.stderr
    assert "out of time" in done.stdout
    summary = json.loads((directory / "summary.json").read_text())
    assert (summary["complete"], summary["incomplete_because"]) == (False, "out of time")
    for victim in ("raylet", "gcs_server"):
        before = len(read_journal(directory / "journal.jsonl")[0]) if (directory / "journal.jsonl").exists() else 0
        process = start_study(*resumed, "--executor", "ray", **OWN_SERVER)
        wait_for_trials(process, directory, before + 15)
        rays = [each for each in psutil.Process(process.pid).children(recursive=True) if is_rays(each)]
        (killed,) = [each for each in rays if each.name() == victim]
        killed.kill()
        said = process.communicate(timeout=60)[1]
        assert process.returncode == 1, said
        assert f"to go on:\n  {command}" in said
        assert "Traceback" not in said
        _, alive = psutil.wait_procs(rays, timeout=60)
        assert not [each for each in alive if each.status() != psutil.STATUS_ZOMBIE]
        assert read_journal(directory / "journal.jsonl")[1] == []
        parent, children = runs_of(load_plan(directory))
        assert "RUNNING" not in {parent.info.status, *(run.info.status for run in children)}
        # Files left by Ray are not read. Unpickling them would create a file here.
        left = [path for path in (directory / "tune").rglob("*") if path.is_file() and path.suffix != ".safetensors"]
        assert left
        for path in left:
            path.write_bytes(pickle.dumps(Payload(marker)))
    done = launch(*resumed, *IN_PROCESS)
    assert done.returncode == 0, done.stderr
    assert_whole(directory)
    assert not [entry for entry in read_trials(directory)["status"].to_pylist() if entry != "finished"]
    assert not marker.exists()


def is_rays(process: psutil.Process) -> bool:
    return process.name() in ("raylet", "gcs_server") or "ray" in " ".join(process.cmdline())


@pytest.mark.fault
def test_a_worker_killed_mid_trial_costs_no_trial(output_dir):
    process = start(
        "maimed", output_dir, "--trials", "2", "--replicates", "1", "--epochs", "60", "--executor", "ray", **OWN_SERVER
    )
    wait_for_trials(process, output_dir / "maimed", 30)
    workers = [
        child
        for child in psutil.Process(process.pid).children(recursive=True)
        if "Trainable" in " ".join(child.cmdline())
    ]
    assert workers
    workers[0].kill()
    assert process.wait(timeout=240) == 0, process.stderr.read()
    assert_whole(output_dir / "maimed")


@pytest.mark.fault
def test_a_study_runs_on_a_cluster_that_somebody_else_started(output_dir, launch, tmp_path):
    port = free_port()
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef0123456789abcdef"}
    ray = str(Path(sys.executable).with_name("ray"))
    command = [ray, "start", "--head", "--block", f"--port={port}", "--num-cpus=2", "--include-dashboard=false"]
    log, environment = tmp_path / "head.log", {**os.environ, **token}
    with running(command, lambda: listens(port), log=log, env=environment) as head:
        time.sleep(3)  # the head answers before its node has joined
        address = f"127.0.0.1:{port}"
        done = launch(
            "--space", "adapter_width", "--smoke", "--name", "elsewhere", "--output-dir", output_dir,
            "--address", address, **token,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert f"connecting to Ray at {address}" in done.stderr
        assert_whole(output_dir / "elsewhere")
        assert head.poll() is None, "the study ended a cluster that is not its own"
        refused = launch("--space", "joint", "--smoke", "--address", address, "--output-dir", output_dir)
        assert refused.returncode == 1
        assert "RAY_AUTH_MODE=token" in refused.stderr


@pytest.mark.fault
def test_a_study_whose_folders_moved_keeps_its_runs_and_one_whose_journal_is_lost_keeps_its_records(
    in_process_study, launch, command, tmp_path
):
    original, hidden, moved = in_process_study.parent, in_process_study.parent.with_name("hidden"), tmp_path / "moved"
    shutil.copytree(original, moved)
    (moved / "small").rename(moved / "renamed")
    directory, sync = moved / "renamed", ("renamed", "--output-dir", moved)
    refused = command(sync_main, *sync)
    assert refused.code == 2
    assert f"is a copy of {in_process_study}" in refused.err

    original.rename(hidden)  # as if the study had been moved, not copied
    try:
        done = launch(*sync, module="study.sync")
        assert done.returncode == 0, done.stderr
        assert not original.exists(), "the old folder was made again"
        assert_whole(directory)
        parent, _ = runs_of(load_plan(directory))
        assert parent.info.artifact_uri.startswith((moved / "mlartifacts").as_uri())
        assert (moved / "mlartifacts" / parent.info.run_id / "artifacts" / "summary.json").is_file()

        trials = finished_before(directory)
        (directory / "journal.jsonl").write_bytes(b"")
        for main, words in ((sync_main, sync), (launch_main, ("--resume", *sync))):
            refused = command(main, *words)
            assert refused.code == 1, refused.err
            assert f"the records contain {len(trials)} ended trials, but the journal contains 0 of them" in refused.err
            assert finished_before(directory) == trials
        done = launch(*sync, "--set-aside-records", module="study.sync")
        assert done.returncode == 0, done.stderr
        (aside,) = (directory / "set-aside").iterdir()
        assert finished_before(aside) == trials
        assert {path.name for path in aside.iterdir()} == {"records", "summary.json", "figures", "report.html"}
        _, children = runs_of(load_plan(directory))
        assert {run.data.tags["trial_id"] for run in children} == set(trials)
        assert {run.info.status for run in children} == {"FINISHED"}
    finally:
        hidden.rename(original)
