"""Studies on Ray in the user's process: one after the other, in threads, interrupted; nothing stays behind."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPT = """
import asyncio, os, signal, threading

import psutil
import torch

import pesfkd
from tests.pesfkd.process_state import differing, process_state

torch.set_num_threads(2)
before = process_state()


def check(what):
    import ray

    assert not ray.is_initialized(), what
    assert differing(before, process_state()) == [], (what, differing(before, process_state()))
    names = [child.name() for child in psutil.Process().children(recursive=True)]
    assert names == [], (what, names)


smoke = {"space": "adapter_width", "smoke": True, "quiet": True}
assert pesfkd.run(**smoke, name="first").complete
check("first")


async def cell():
    return pesfkd.run(**smoke, name="second")


found = []
thread = threading.Thread(target=lambda: found.append(asyncio.run(cell())))
thread.start()
thread.join()
assert found[0].complete
check("in a thread")

timer = threading.Timer(8.0, lambda: os.kill(os.getpid(), signal.SIGINT))
timer.start()
try:
    pesfkd.run(space="adapter_width", epochs=300, name="stopped", quiet=True)
except pesfkd.StudyInterrupted as stopped:
    assert "pesfkd.resume('stopped')" in str(stopped)
else:
    raise AssertionError("it was not interrupted")
check("interrupted")
resumed = pesfkd.resume("stopped", executor="in-process", time_budget=0.1, quiet=True)
assert not resumed.complete
check("resumed")
print("all is well")
"""


def test_studies_on_ray_leave_the_process_as_it_was(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script], cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout == "all is well\n"
