"""Worker processes are forked from a process with all imports done, and otherwise start as Ray starts them."""

import json
import os
import signal
import socket
import subprocess
import sys

import psutil
import pytest

from study.running.worker_server import START_SCRIPT, SWITCH, worker_server
from study.running.worker_start import ADDRESS, peer_is_me
from trainables.process.environment import WORKERS, set_unless_set

pytestmark = pytest.mark.launcher

# Replaces Ray's worker program.
PROGRAM = """
import json, os, random, signal, sys
had = "torch" in sys.modules
import numpy
from ray._raylet import JobID, TaskID
print(json.dumps({
    "had": had, "ids": [TaskID.for_fake_task(JobID.from_int(1)).hex() for _ in range(3)],
    "words": sys.argv, "path": sys.path[0], "folder": os.getcwd(), "parent": os.getppid(),
    "leads": os.getpgid(0) == os.getpid(), "niceness": os.getpriority(os.PRIO_PROCESS, 0),
    "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "interrupt": signal.getsignal(signal.SIGINT) is signal.default_int_handler,
    "random": [random.random(), numpy.random.random()], "mine": os.environ.get("MINE"),
    "job": os.environ["RAY_JOB_ID"], "address": os.environ.get("PESFKD_WORKER_SERVER"),
    "terminal": sys.stderr.isatty(), "oom": open("/proc/self/oom_score_adj").read(),
}), flush=True)
"""
BY_DRIVER = """
import time
from study.running.worker_server import worker_server
with worker_server([]) as address:
    print(address, flush=True)
    time.sleep(600)
"""


def ray_environment(address, **environment):
    inherited = {name: value for name, value in os.environ.items() if name != "PYTEST_CURRENT_TEST"}
    of_ray = {"RAY_AUTH_MODE": "token", "SPT_NOENV": "1", "RAY_RAYLET_PID": "1", "RAY_JOB_ID": "01000000"}
    return inherited | of_ray | {ADDRESS: address} | environment


def run_start_script(address, program, *words, **environment):
    """Run the start script the way Ray starts it for a worker with this program, and wait for the end."""
    return subprocess.run(
        [sys.executable, START_SCRIPT, program, *words, "--language=PYTHON"],
        env=ray_environment(address, **environment),
        capture_output=True, text=True, timeout=120, check=False, cwd=program.parent, process_group=0,
        preexec_fn=lambda: (os.nice(3), signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGUSR2])),
    )  # fmt: skip


def worker_answer(address, program, *words, **environment):
    """Return the script's exit code, the answer of `PROGRAM`, and the error output."""
    process = run_start_script(address, program, *words, **environment)
    return process.returncode, json.loads(process.stdout), process.stderr


@pytest.fixture
def program(tmp_path):
    path = tmp_path / "program.py"
    path.write_text(PROGRAM)
    return path


@pytest.fixture(scope="module")
def address():
    os.environ.pop("PYTEST_CURRENT_TEST", None)
    set_unless_set(WORKERS)  # a process with several library threads must not be forked
    with worker_server(["trainables.data.digits"]) as given:
        yield given


@pytest.fixture(autouse=True)
def no_rays_own_mode(monkeypatch):
    for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN"):
        monkeypatch.delenv(name, raising=False)


def test_a_worker_is_forked_with_what_ray_has_given_it(address, program):
    code, found, said = worker_answer(address, program, "--worker-id=1")
    other = worker_answer(address, program, "--worker-id=2", RAY_JOB_ID="02000000")[1]
    assert (code, said) == (0, "")
    assert found["had"], "it was not forked"
    assert found["words"] == [str(program), "--worker-id=1"]
    assert found["path"] == found["folder"] == str(program.parent)
    assert found["leads"]
    assert found["interrupt"]
    assert (found["niceness"], found["blocked"], found["oom"].strip()) == (3, [signal.SIGUSR2], "1000")
    assert (found["job"], other["job"], found["address"]) == ("01000000", "02000000", None)
    assert found["parent"] == other["parent"] != os.getpid()
    assert not set(found["random"]) & set(other["random"]), "forked workers draw the same random numbers"
    assert not set(found["ids"]) & set(other["ids"]), "forked workers give the same ids to different objects of Ray"


def test_variables_of_a_runtime_environment_are_set_and_other_ones_are_not_forked(address, program):
    context = json.dumps({"command_prefix": [], "env_vars": {"PL_DISABLE_FORK": "1"}, "py_executable": sys.executable})
    code, found, _ = worker_answer(address, program, f"--serialized-runtime-env-context={context}")
    assert (code, found["had"], found["words"]) == (0, True, [str(program)])
    context = json.dumps({"env_vars": {"MINE": "1"}})
    code, found, _ = worker_answer(address, program, f"--serialized-runtime-env-context={context}")
    assert (code, found["had"], found["mine"], found["words"]) == (0, False, "1", [str(program)])
    code, found, _ = worker_answer(address, program, RAY_RAYLET_PID="2")
    assert (code, found["had"]) == (0, False)


def test_what_is_not_plain_is_started_by_rays_own_script(address, program):
    """The context has a command prefix, so Ray's script starts the worker through a shell."""
    context = json.dumps({"command_prefix": ["MINE=prefixed"]})
    code, found, _ = worker_answer(address, program, f"--serialized-runtime-env-context={context}")
    assert (code, found["had"], found["mine"]) == (0, False, "prefixed")


def test_without_a_server_a_worker_starts_all_the_same(program, monkeypatch):
    code, found, _ = worker_answer("pesfkd-of-nobody", program)
    assert (code, found["had"]) == (0, False)
    monkeypatch.setenv(SWITCH, "0")
    with worker_server([]) as address:
        assert address is None


def test_a_server_that_cannot_import_ends_and_workers_start_all_the_same(program):
    with worker_server(["no_such_module"]) as address:
        code, found, _ = worker_answer(address, program)
    assert (code, found["had"]) == (0, False)


def test_a_worker_that_dies_ends_the_process_that_ray_has_started(address, program):
    program.write_text("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
    process = run_start_script(address, program)
    assert process.returncode == 0


@pytest.mark.parametrize(
    ("end", "said"),
    [("import sys; sys.exit(3)", ""), ("raise ValueError('broken')", "ValueError: broken")],
)
def test_what_a_worker_says_at_its_end_is_heard(address, program, end, said):
    program.write_text(f"import atexit; atexit.register(print, 'left'); print(1); {end}")
    process = run_start_script(address, program)
    assert process.stdout == "1\nleft\n"
    assert said in process.stderr


def test_a_server_ends_with_its_driver_however_that_ends():
    driver = subprocess.Popen([sys.executable, "-c", BY_DRIVER], stdout=subprocess.PIPE, text=True)
    assert driver.stdout.readline().startswith("pesfkd-")
    (server,) = psutil.Process(driver.pid).children()
    driver.kill()
    driver.wait()
    driver.stdout.close()
    assert psutil.wait_procs([server], timeout=60)[1] == []


def test_a_server_with_other_threads_forks_nothing(program, monkeypatch, tmp_path):
    module = tmp_path / "begins_a_thread.py"
    module.write_text("import threading, time; threading.Thread(target=time.sleep, args=(600,), daemon=True).start()")
    monkeypatch.syspath_prepend(tmp_path)
    with worker_server(["begins_a_thread"]) as address:
        code, found, _ = worker_answer(address, program)
    assert (code, found["had"]) == (0, False)


DRAWS_AN_ID = "import ray\n@ray.remote\nclass Actor: pass\n"
CHECKS_ITSELF = """
import importlib, sys
from study.running.worker_server import forks_draw_different_ids, import_with_ray
import_with_ray(["ray.tune"])
import ray.actor
assert ray.actor.ActorClassID is ray.ActorClassID
before = forks_draw_different_ids()
importlib.import_module("draws_an_id")
print(before, forks_draw_different_ids())
"""


def test_a_server_notices_that_its_workers_would_draw_the_same_ids(tmp_path):
    (tmp_path / "draws_an_id.py").write_text(DRAWS_AN_ID)
    path = os.pathsep.join([str(tmp_path), os.getcwd()])  # noqa: PTH109
    process = subprocess.run(
        [sys.executable, "-c", CHECKS_ITSELF], env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True,
        timeout=120, check=False,
    )  # fmt: skip
    assert process.stdout == "True False\n", process.stderr


def test_only_the_same_user_is_served(monkeypatch):
    for end in socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET):
        with end:
            assert peer_is_me(end)
            with monkeypatch.context() as patched:
                patched.setattr(os, "getuid", lambda: 12345)
                assert not peer_is_me(end)
