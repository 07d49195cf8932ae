"""Detection of a lost cluster, with real sockets. `test_faults.py` kills the processes of a real cluster."""

import socket
import subprocess
import sys
import time

import pytest

from study.running.cluster_watch import Cluster, ClusterWatch
from tests.study.inspection import wait_until

pytestmark = pytest.mark.study


@pytest.fixture
def head():
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


@pytest.fixture
def raylet(tmp_path):
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(tmp_path / "raylet"))
        server.listen(1)
        yield server


def watched(head, raylet=None, **options):
    heard = []
    cluster = Cluster(head.getsockname(), raylet.getsockname() if raylet is not None else None)
    return ClusterWatch(cluster, heard.append, **options), heard


def test_a_cluster_that_answers_is_not_lost_however_often_it_is_asked(head, raylet):
    watch, heard = watched(head, raylet)
    # Nobody accepts, so the queue of connections fills up, as with a slow process.
    assert [watch.check() for _ in range(3)] == [None] * 3
    assert watch.end() is None
    raylet.close()
    time.sleep(0.1)
    assert (watch.end(), heard) == (None, []), "the cluster was left by then"


def test_a_raylet_that_ended_is_noticed_at_once_and_told_of_once(head, raylet):
    watch, heard = watched(head, raylet)
    raylet.close()
    assert "runs trials on this machine (raylet) ended" in watch.check()
    wait_until(lambda: heard, timeout=20)
    assert [watch.check(), watch.end()] == [watch.lost] * 2
    assert heard == [watch.lost]
    watch.dismiss()


def test_a_head_elsewhere_is_lost_when_it_does_not_answer_for_some_time(head):
    watch, heard = watched(head, seconds_away=3.0)
    address = head.getsockname()
    head.close()
    assert watch.check() is None, "it may come back"
    wait_until(lambda: heard, timeout=30)
    assert heard == [f"the head of the Ray cluster (GCS, 127.0.0.1:{address[1]}) has not answered for 3 s"]
    watch.dismiss()


def test_another_reason_not_to_go_on_ends_a_study_too(head):
    reasons = []
    watch, heard = watched(head, trouble=lambda: reasons[0] if reasons else None)
    assert watch.check() is None
    reasons.append("no node can run a trial")
    wait_until(lambda: heard, timeout=30)
    assert heard == ["no node can run a trial"]
    assert watch.lost == "no node can run a trial"
    watch.dismiss()


STUCK = """
import socket, sys, threading, time
from study.running.cluster_watch import Cluster, ClusterWatch

server = socket.socket(socket.AF_UNIX)
server.bind(sys.argv[1])
server.listen()
said = lambda: print("last words", flush=True)
watch = ClusterWatch(
    Cluster(("127.0.0.1", 1), sys.argv[1]), lambda lost: None, last_words=said, parting=lambda lost: f"{lost}; go on",
    seconds_to_leave=0.2, seconds_away=1000.0,
)
server.close()
import atexit
atexit.register(time.sleep, 1000)
time.sleep(1000)
"""


@pytest.mark.launcher
def test_a_process_that_hangs_when_its_cluster_is_lost_is_ended_after_its_last_words(tmp_path):
    done = subprocess.run(
        [sys.executable, "-c", STUCK, str(tmp_path / "raylet")],
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "last words\n"), done.stderr
    assert done.stderr.endswith("(raylet) ended; go on\n")
