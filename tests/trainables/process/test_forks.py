"""Workers forked from a template: they answer, die alone, and end with the process that started them."""

import os
import subprocess
import sys
import time

import psutil
import pytest

from trainables.process.forks import Template

pytestmark = [pytest.mark.launcher, pytest.mark.skipif(sys.platform != "linux", reason="forks need Linux")]

ECHO = "tests.trainables.process.echo:serve"


def gone(pid: int) -> bool:
    """Return whether a process has ended, or is a zombie."""
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def wait_for(reached) -> None:
    deadline = time.monotonic() + 60
    while not reached():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_workers_have_the_imports_answer_and_die_alone():
    template = Template(ECHO, ["decimal"], os.environ)
    first, second = template.fork(), template.fork()
    for worker in (first, second):
        worker.connection.send("decimal" in sys.modules)
        said, modules, pid = worker.connection.recv()
        assert (said, pid) == (True, worker.pid)
        assert "decimal" in modules
    first.kill()
    wait_for(lambda: gone(first.pid))
    first.kill()  # nothing left to end
    second.connection.send(2)
    assert second.connection.recv()[0] == 2
    os.kill(second.pid, 9)
    with pytest.raises(EOFError):
        second.connection.recv()
    third = template.fork()
    template.close()
    wait_for(lambda: gone(third.pid))


def test_a_template_with_threads_or_without_life_starts_new_processes():
    threaded = Template("tests.trainables.process.echo:serve", ["tests.trainables.process.echo_thread"], os.environ)
    worker = threaded.fork()
    worker.connection.send("here")
    assert worker.connection.recv()[0] == "here"
    threaded._process.kill()
    threaded._process.wait()
    other = threaded.fork()
    other.connection.send("too")
    assert other.connection.recv()[0] == "too"
    threaded.close()
    wait_for(lambda: gone(worker.pid) and gone(other.pid))


_PARENT = """
import os, sys, time
from trainables.process.forks import Template

template = Template(sys.argv[1], [], os.environ)
worker = template.fork()
worker.connection.send("")
worker.connection.recv()
print(template._process.pid, worker.pid, flush=True)
time.sleep(600)
"""


def test_template_and_workers_end_with_a_killed_parent():
    parent = subprocess.Popen([sys.executable, "-c", _PARENT, ECHO], stdout=subprocess.PIPE, text=True)
    pids = [int(word) for word in parent.stdout.readline().split()]
    assert len(pids) == 2
    parent.kill()
    parent.communicate()
    wait_for(lambda: all(map(gone, pids)))
