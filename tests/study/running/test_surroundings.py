"""Disturbances around a study: clock jumps, nodes that come and go, read-only folders, Ctrl-C."""

import itertools
import os
import shlex
import shutil
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from unittest import mock

import pytest

from study.running import cluster as study_cluster  # sets Ray's environment before Ray is imported

# isort: split
from ray.cluster_utils import Cluster

from study.cli.progress import StudyProgress
from study.plan.resolve import load_plan
from study.records import read_trials
from study.running import on_ray, runner
from tests.conftest import start_process
from tests.study.factories import make_plan
from tests.study.faulty import Lab
from tests.study.inspection import assert_whole, read_journal, runs_of, wait_until
from tests.study.processes import start, wait_for_trials
from trainables.tune import trainable as distillation

pytestmark = pytest.mark.fault
ROOT = Path(__file__).parents[3]
DAY = 86_400.0


def test_a_clock_that_jumps_reorders_nothing(tmp_path):
    plan = make_plan(
        tmp_path, trials=4, promising=1, replicates=1, sampler="random", max_concurrent=2, cpus_per_trial=0.5
    )
    plan.save()
    now, began = time.time, time.monotonic()
    jumps = itertools.cycle([0.0, DAY, -DAY, 3600.0, -3600.0])

    def jumping() -> float:
        return now() + next(jumps) * (time.monotonic() - began > 3)

    with mock.patch("time.time", jumping):
        entries = list(Lab(tmp_path / "lab").run(plan).values())
    assert_whole(plan.directory)
    times = [event.get("time", event.get("started")) for event in read_journal(plan.directory / "journal.jsonl")[0]]
    known = [each for each in times if each is not None]
    assert known == sorted(known)
    assert max(known) - now() > 3000, "no jump was noticed"
    assert read_trials(plan.directory)["trial_id"].to_pylist() == [entry.trial_id for entry in entries]
    for run in runs_of(plan)[1]:
        assert run.info.end_time >= run.info.start_time


def test_trials_move_from_a_node_that_goes_and_work_begins_on_one_that_comes(tmp_path):
    lab = Lab(tmp_path / "lab", seconds_per_epoch=0.4, saves_every_epoch=True)
    nodes = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    going, came, ended = nodes.add_node(num_cpus=1), [], threading.Event()
    plan = make_plan(
        tmp_path, trials=12, promising=1, replicates=1, sampler="random", address=nodes.address, base={"epochs": 8}
    )
    plan.save()

    def change() -> None:
        wait_until(lambda: going.node_id in {each.node for each in begun(lab) if each.epoch > 3})
        nodes.remove_node(going, allow_graceful=False)
        gone_at = len(begun(lab))
        wait_until(lambda: len(begun(lab)) > gone_at + 4)
        # Ray's SIGTERM handler can only be set in the main thread, which runs the study.
        with mock.patch("ray._private.utils.set_sigterm_handler"):
            came.append(nodes.add_node(num_cpus=1))
        ended.wait()  # Ray ends a node together with the thread that started it

    changing = threading.Thread(target=change)
    changing.start()
    try:
        entries = lab.run(plan)
    finally:
        ended.set()
        changing.join()
        study_cluster.stop_ray()
        nodes.shutdown()
    assert_whole(plan.directory)
    assert {entry.status for entry in entries.values()} == {"finished"}
    work = lab.work()
    moved = {each.trial for each in work if each.node == going.node_id}
    elsewhere = {each.trial: each for each in reversed(work) if each.trial in moved and each.node != going.node_id}
    assert elsewhere, "no trial moved"
    assert all(each.epoch > 1 for each in elsewhere.values()), "a trial that moved began from scratch"
    assert came[0].node_id in {each.node for each in work}, "the new node had nothing to do"


@pytest.fixture
def one_ray():
    """Start one Ray for all studies of a test, which then neither start nor stop Ray."""
    study_cluster.start_ray("local")
    with mock.patch.object(on_ray, "start_ray"), mock.patch.object(on_ray, "stop_ray"):
        yield
    study_cluster.stop_ray()


def test_a_time_budget_that_is_used_up_in_any_phase_leaves_work_and_after_the_last_trial_none(tmp_path, one_ray):
    """`test_faults.py` tests the phase of teacher training with the command line."""
    lab = Lab(tmp_path / "lab")
    plan = make_plan(
        tmp_path, trials=2, promising=1, replicates=1, sampler="random", base={"epochs": 2},
        confirmation={"configs": 1, "seeds": 2}, max_concurrent=1, executor="ray",
    )  # fmt: skip
    plan.save()
    reached = {
        "filling": lambda stop: "teacher outputs stored" in lab.said.getvalue(),
        "search": lambda stop: any(entry.epochs for entry in stop.ledger.in_stage("search")),
        "confirmation": lambda stop: any(entry.epochs for entry in stop.ledger.in_stage("confirm")),
        "end": lambda stop: stop.ledger.ended == stop.ledger.planned,
    }
    ended = []
    for phase, is_used_up in reached.items():
        lab.said.truncate(0)
        with (
            mock.patch.object(distillation, "DistillationTrainable", lab.trainable),
            mock.patch.object(runner.Stop, "out_of_time", property(is_used_up)),
        ):
            progress = StudyProgress(plan, stream=lab.said)
            run, tracker = runner.run_study(plan, progress=progress, command="", versions={})
        assert tracker.finish("FINISHED" if run.complete else "KILLED") is None
        assert (run.out_of_time, run.complete) == (phase != "end", phase == "end"), phase
        assert run.incomplete_because == ("out of time" if phase != "end" else None)
        ended.append(run.ledger.ended)
    assert ended[0] == 0 < ended[2] < ended[3]
    assert_whole(plan.directory)


def begun(lab):
    return lab.work() if (lab.folder / "work").exists() else []


def test_ctrl_c_twice_ends_a_study_at_once_and_it_can_be_gone_on_with_where_nothing_can_be_printed(
    output_dir, full_device
):
    directory = output_dir / "hurried"
    process = start("hurried", output_dir, "--trials", "2", "--replicates", "1", "--epochs", "40")
    try:
        wait_for_trials(process, directory, 20)
        process.send_signal(signal.SIGINT)
        time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=120)[1]
    finally:
        process.kill()
    assert process.returncode == 130, said
    assert f"--resume hurried --output-dir {output_dir}" in said
    assert "Traceback" not in said
    resumed = ["study.launch", "--resume", "hurried", "--output-dir", str(output_dir)]
    command = shlex.join([sys.executable, "-m", *resumed, "--executor", "in-process"])
    done = subprocess.run(["sh", "-c", f"{command} >&- 2> {full_device}"], timeout=240, check=False)
    assert done.returncode == 0, "run it again without the redirections to see why"
    with full_device.open("wb") as device:
        again = start_process(*resumed, stdout=device.fileno())
    said = again.communicate(timeout=240)[1]
    assert again.returncode == 0, said
    assert f"it is in {directory / 'summary.json'}" in said
    assert_whole(directory)


def test_a_code_folder_that_is_read_only_and_a_home_that_cannot_be_written_are_enough(tmp_path):
    code, out = tmp_path / "code", tmp_path / "out"
    for package in ("analysis", "search_spaces", "study", "trainables"):
        shutil.copytree(ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    out.mkdir()
    for path in (tmp_path, out, *code.rglob("*"), code):
        path.chmod(0o555 if path != out and path.is_dir() else 0o777 if path == out else 0o444)
    confined = []
    if os.geteuid() == 0:  # root can write anywhere unless these capabilities are dropped
        confined = ["setpriv", "--bounding-set=-dac_override,-dac_read_search,-fowner"]
    environment = {**os.environ, "HOME": "/proc/nowhere", "PYTHONPATH": str(code)}
    for name in ("PESFKD_CACHE", "XDG_CACHE_HOME", "MPLCONFIGDIR", "RAY_TMPDIR"):
        environment.pop(name, None)
    try:
        done = subprocess.run(
            [*confined, sys.executable, "-m", "study.launch", "--space", "adapter_width", "--smoke",
             "--name", "confined", "--output-dir", str(out)],
            cwd=code, env=environment, capture_output=True, text=True, timeout=300, check=False,
        )  # fmt: skip
    finally:
        for path in (code, *(path for path in code.rglob("*") if path.is_dir())):
            path.chmod(0o755)
        tmp_path.chmod(0o755)
    assert done.returncode == 0, done.stderr
    assert_whole(out / "confined")
    assert not list(code.rglob("__pycache__"))
    assert load_plan(out / "confined").directory == out / "confined"
