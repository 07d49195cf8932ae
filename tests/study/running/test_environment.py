import os
import subprocess
import sys

import pytest

from trainables.process.environment import KEEP_FREED_MEMORY, WORKERS, set_unless_set

SHOW_A_WORKERS = """
from study.running.cluster import start_ray, stop_ray
import os, ray
start_ray("local")
print(ray.get(ray.remote(lambda: os.environ["GLIBC_TUNABLES"]).remote()))
stop_ray()
"""


def test_what_the_user_has_set_stays(monkeypatch):
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.delenv(KEEP_FREED_MEMORY, raising=False)
    set_unless_set(WORKERS)
    assert os.environ["OMP_NUM_THREADS"] == "3"
    assert os.environ[KEEP_FREED_MEMORY] == WORKERS[KEEP_FREED_MEMORY]


@pytest.mark.launcher
@pytest.mark.parametrize("users", [{}, {KEEP_FREED_MEMORY: "glibc.malloc.tcache_count=3"}])
def test_a_worker_starts_in_it(users):
    clean = {name: value for name, value in os.environ.items() if name != KEEP_FREED_MEMORY}
    command = [sys.executable, "-c", SHOW_A_WORKERS]
    shown = subprocess.run(command, env=clean | users, capture_output=True, text=True, timeout=100, check=True)
    assert shown.stdout.split() == [users.get(KEEP_FREED_MEMORY, WORKERS[KEEP_FREED_MEMORY])]
