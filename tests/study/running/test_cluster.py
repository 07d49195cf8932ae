"""Cluster on this machine: who can connect, how many trials fit, and their resources."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest
import ray
from ray import tune
from ray.cluster_utils import Cluster

from study.cli.progress import StudyProgress
from study.plan.cluster_address import check_address_form, host_and_port
from study.running import cluster as cluster_module
from study.running.cluster import Slots, check_address, fitting, start_ray, stop_ray
from study.running.ray_servers import _STAND_IN, _with_stand_in
from study.running.resources import Packing
from tests.study.factories import make_plan
from trainables.process.errors import StudyError, UsageError

LISTENERS = """
import json
import os
import psutil
import ray
from study.running.cluster import start_ray, stop_ray
start_ray("local")
parent = ray.get(ray.remote(lambda: os.getppid()).remote())
me = psutil.Process()
family = [me, *me.children(recursive=True)]
listening = [
    [process.name(), socket.laddr.ip] for process in family for socket in process.net_connections("inet")
    if socket.status == "LISTEN"
]
words = sorted({word for each in family for word in each.cmdline()})
print(json.dumps({"parent": psutil.Process(parent).cmdline(), "listening": listening, "words": words}))
stop_ray()
"""


@pytest.mark.slow
def test_every_server_of_a_local_cluster_is_needed_and_listens_on_loopback_alone():
    done = subprocess.run([sys.executable, "-c", LISTENERS], capture_output=True, text=True, timeout=400, check=False)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert {"gcs_server", "raylet"} <= {name for name, _ in found["listening"]}
    assert {ip.removeprefix("::ffff:") for _, ip in found["listening"]} <= {"127.0.0.1", "::1"}, found
    programs = {Path(word).name for word in found["words"]}
    assert {"gcs_server", "raylet"} <= programs
    assert any("study.running.worker_server" in word for word in found["parent"]), "the worker was not forked"
    assert not programs & {"dashboard.py", "log_monitor.py", "monitor.py"}
    assert "agent_stand_in.py" in programs
    assert not any("DashboardAgent" in word for word in found["words"])


@pytest.mark.launcher
def test_the_process_in_the_place_of_an_agent_ends_with_its_node():
    node = subprocess.Popen(
        ["sh", "-c", f"RAY_RAYLET_PID=$$ '{sys.executable}' -I -S '{_STAND_IN}' & echo $!; wait"],
        stdout=subprocess.PIPE,
        text=True,
    )
    agent = psutil.Process(int(node.stdout.readline()))
    node.kill()
    node.wait()
    node.stdout.close()
    assert psutil.wait_procs([agent], timeout=60)[1] == []


@pytest.mark.launcher
def test_a_raylet_without_an_agent_is_started_as_it_is():
    command = ["raylet", "--session_dir=x", "--node_id=y", "--resources=a=b"]
    assert _with_stand_in(command) == command


@pytest.mark.parametrize(
    ("has", "cpus", "gpus", "fit"),
    [
        ({"CPU": 8.0}, 1, 0, 8),
        ({"CPU": 8.0}, 3, 0, 2),
        ({"CPU": 8.0}, 0.1, 0, 80),
        ({"CPU": 8.0}, 1, 0.25, 0),  # trials that need a GPU do not fit on a node without GPUs
        ({"CPU": 8.0, "GPU": 2.0}, 1, 0.25, 8),
        ({"CPU": 8.0, "GPU": 2.0}, 1, 0.4, 4),  # not five, because no trial uses parts of two GPUs
        ({"CPU": 2.0, "GPU": 4.0}, 1, 1, 2),
        ({"CPU": 8.0, "GPU": 4.0}, 1, 2, 2),
    ],
)
def test_so_many_trials_fit_on_a_node(has, cpus, gpus, fit):
    assert fitting(has, {"CPU": cpus, "GPU": gpus}) == fit


@pytest.mark.parametrize("gpus", [1.5, 2.25])
def test_a_part_beside_whole_gpus_is_refused(tmp_path, gpus):
    with pytest.raises(UsageError, match=r"a fraction of one GPU, such as 0\.25, or a whole number of GPUs"):
        make_plan(tmp_path, gpus_per_trial=gpus)


class Probe(tune.Trainable):
    """Trial that reports node and devices, after all expected trials have started."""

    def setup(self, config):
        self.desk = ray.get_actor("desk")
        self.last = ray.get(self.desk.enter.remote(ray.get_runtime_context().get_node_id()))

    def reset_config(self, new_config):
        return True

    def step(self):
        while ray.get(self.desk.count.remote()) < 4:
            time.sleep(0.1)
        return {
            "node": ray.get_runtime_context().get_node_id(),
            "devices": os.environ.get("CUDA_VISIBLE_DEVICES"),
            "done": True,
        }


class Desk:
    def __init__(self):
        self.nodes = []

    def enter(self, node):
        self.nodes.append(node)

    def count(self):
        return len(self.nodes)


class ProbePacking(Packing):
    def _trainable(self):
        return Probe


@pytest.fixture(scope="module")
def uneven() -> Iterator[Cluster]:
    """Cluster of a node with three cores and a node with one core and a simulated GPU."""
    cluster = Cluster()
    try:
        cluster.add_node(num_cpus=3, num_gpus=0, include_dashboard=False)
        cluster.add_node(num_cpus=1, num_gpus=1, include_dashboard=False)
        start_ray(cluster.address)
        yield cluster
    finally:
        stop_ray()
        cluster.shutdown()


@pytest.mark.slow
def test_room_is_counted_node_by_node_unless_it_is_given(uneven):
    assert Slots(cpus=1, gpus=0, at_most=None)() == 4
    assert Slots(cpus=2, gpus=0, at_most=None)() == 1
    assert Slots(cpus=0.25, gpus=0.25, at_most=None)() == 4
    assert Slots(cpus=0.25, gpus=0.25, at_most=3)() == 3
    assert Slots(cpus=1, gpus=1, at_most=8)() == 1
    with pytest.raises(StudyError, match="asks for 4 CPU and the largest node has 3: lower --cpus-per-trial"):
        Slots(cpus=4, gpus=0, at_most=None).check()


@pytest.mark.slow
def test_four_trials_share_a_gpu_and_none_goes_to_a_node_without(uneven, tmp_path):
    plan = make_plan(tmp_path, gpus_per_trial=0.25, cpus_per_trial=0.25)
    desk = ray.remote(Desk).options(name="desk", num_cpus=0).remote()
    packing = ProbePacking(plan, {}, StudyProgress(plan, quiet=True))
    assert packing.slots() == 4
    results = tune.Tuner(
        packing.trainable,
        tune_config=tune.TuneConfig(num_samples=4, reuse_actors=True),
        run_config=tune.RunConfig(storage_path=str(tmp_path / "tune"), verbose=0),
    ).fit()
    with_gpu = {node["NodeID"] for node in ray.nodes() if node["Resources"].get("GPU")}
    assert {result.metrics["node"] for result in results} == with_gpu
    assert [result.metrics["devices"] for result in results] == ["0"] * 4
    ray.kill(desk)


@pytest.mark.parametrize("interruption", [KeyboardInterrupt(), SystemExit(signal.SIGTERM)])
def test_an_interruption_while_ray_starts_ends_its_processes(interruption, monkeypatch):
    def interrupted(**_: object):
        raise interruption  # Ray's own handler of SIGTERM raises SystemExit

    ended = []
    monkeypatch.setattr(ray, "init", interrupted)
    monkeypatch.setattr(cluster_module, "stop_ray", lambda: ended.append(True))
    with pytest.raises(KeyboardInterrupt):
        start_ray("head:6379")
    assert ended == [True]


@pytest.mark.parametrize(
    "address",
    ["", "head", ":6379", "head:", "head:x", "head:-1", "head:0", "head:99999", "head:²", "head:" + "9" * 5000,
     "head:6379/x", "http://head:6379", "LOCAL"],
)  # fmt: skip
def test_what_is_no_address_of_a_cluster_is_refused(address, monkeypatch):
    with pytest.raises(UsageError, match=r"^--address .*give local, auto, or the HOST:PORT"):
        check_address_form(address)
    if address:
        monkeypatch.setenv("RAY_ADDRESS", address)
        with pytest.raises(UsageError, match=r"^--address auto with RAY_ADDRESS"):
            check_address_form("auto")


def test_ray_client_is_refused_without_its_password_as_it_would_run_the_search_apart_from_the_journal(monkeypatch):
    with pytest.raises(UsageError, match=r"^--address ray://\*\*\*@head:10001: Ray Client is not supported"):
        check_address_form("ray://me:hush@head:10001")
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    check_address_form("local")
    with pytest.raises(UsageError, match=r"^--address auto with RAY_ADDRESS ray://head:10001"):
        check_address_form("auto")


@pytest.mark.parametrize("address", ["local", "auto", "head:6379", "[::1]:6379", "::1:6379", "192.0.2.1:1"])
def test_addresses_of_clusters_are_taken(address, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    check_address_form(address)
    if ":" in address:
        host, port = host_and_port(address)
        assert "[" not in host
        assert address.endswith(f":{port}")


@pytest.mark.launcher
@pytest.mark.parametrize("host", ["a..b", "a" * 64, "\udcff", "no such host"])
def test_a_name_that_no_host_has_is_refused(host):
    with pytest.raises(StudyError, match=r"^no Ray cluster answers at "):
        check_address(f"{host}:6379")


@pytest.mark.launcher
def test_a_look_up_of_a_name_that_takes_for_ever_ends_in_time(tmp_path, monkeypatch):
    (tmp_path / "sitecustomize.py").write_text(
        "import socket, time\nsocket.getaddrinfo = lambda *a, **k: time.sleep(600)\n"
    )
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(cluster_module, "_SECONDS_TO_ANSWER", 2)
    began = time.monotonic()
    with pytest.raises(StudyError, match=r"^head:6379 did not answer as a Ray cluster within 2 s"):
        check_address("head:6379")
    assert time.monotonic() - began < 60
