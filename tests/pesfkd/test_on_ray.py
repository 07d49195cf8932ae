"""Studies on Ray in the user's process, without a main guard: in a thread, interrupted; nothing stays behind."""

import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.slow

ROOT = Path(__file__).parents[2]
SCRIPT = """
import asyncio, os, pathlib, signal, sys, threading, time

import psutil
import torch

import pesfkd

exec(open(sys.argv[1]).read())
torch.set_num_threads(2)
before = process_state()


def check(what):
    import ray

    assert not ray.is_initialized(), what
    assert differing(before, process_state()) == [], (what, differing(before, process_state()))
    names = [child.name() for child in psutil.Process().children(recursive=True)]
    assert names == [], (what, names)


smoke = {"space": "adapter_width", "smoke": True, "quiet": True, "executor": "ray"}


async def cell():
    return pesfkd.run(**smoke, name="first")


found = []
thread = threading.Thread(target=lambda: found.append(asyncio.run(cell())))
thread.start()
thread.join()
assert found[0].complete
check("in a thread")



def interrupt():
    journal = pathlib.Path("study_results/stopped/journal.jsonl")
    while not (journal.is_file() and '"event":"epoch"' in journal.read_text()):
        time.sleep(0.2)
    os.kill(os.getpid(), signal.SIGINT)


threading.Thread(target=interrupt, daemon=True).start()
try:
    pesfkd.run(space="adapter_width", epochs=300, name="stopped", quiet=True, executor="ray")
except pesfkd.StudyInterrupted as stopped:
    assert "pesfkd.resume('stopped')" in str(stopped)
else:
    raise AssertionError("it was not interrupted")
check("interrupted")
resumed = pesfkd.resume("stopped", executor="in-process", time_budget=0.1, quiet=True)
assert not resumed.complete
check("resumed")
import analysis, study
print(analysis.__file__, study.__file__)
"""


def test_studies_on_ray_leave_the_process_as_it_was(tmp_path):
    """Beside files that would replace our packages, here and in Ray's workers."""
    for name in ("study", "analysis", "search_spaces", "trainables"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('the file in the working directory was imported')")
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    done = subprocess.run(
        [sys.executable, script, ROOT / "tests" / "pesfkd" / "process_state.py"],
        cwd=tmp_path, capture_output=True, text=True, timeout=500, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(ROOT / name / "__init__.py") for name in ("analysis", "study")]
