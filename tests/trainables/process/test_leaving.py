"""A command that ends without teardown keeps exit code, output, threads and exit handlers."""

import subprocess
import sys

import pytest

pytestmark = pytest.mark.launcher

_COMMAND = """
import atexit, sys, threading, time
from trainables.process.leaving import run_and_leave

class Torn:
    def __del__(self):
        print("torn down")

kept = Torn()

def late():
    time.sleep(0.3)
    print("thread ended")

def main():
    atexit.register(print, "handler ran")
    threading.Thread(target=late).start()
    print("result", end="")
    {end}

run_and_leave(main)
"""


@pytest.mark.parametrize(
    ("end", "code", "said"),
    [
        ("pass", 0, ""), ("sys.exit(3)", 3, ""), ("sys.exit('why')", 1, "why\n"),
        ("raise ValueError('unexpected')", 1, "ValueError: unexpected"),
    ],
)  # fmt: skip
def test_code_output_threads_and_handlers_are_as_usual(end, code, said):
    done = subprocess.run(
        [sys.executable, "-c", _COMMAND.replace("{end}", end)], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == code
    assert said in done.stderr
    assert done.stdout.startswith("result")
    assert done.stdout.index("thread ended") < done.stdout.index("handler ran")
    assert ("torn down" in done.stdout) == ("unexpected" in said)
