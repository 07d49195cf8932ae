"""Addresses used by `make ui`, with a stand-in for MLflow that prints the arguments."""

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.launcher
@pytest.mark.parametrize(
    ("given", "host", "warns"),
    [
        ([], "127.0.0.1", False),
        (["HOST=localhost"], "localhost", False),
        (["HOST=0.0.0.0"], "0.0.0.0", True),
    ],
)
def test_the_ui_listens_on_loopback_and_warns_where_it_is_told_another_place(tmp_path, given, host, warns):
    program, ready = tmp_path / "mlflow", tmp_path / "ready"
    program.write_text('#!/bin/sh\necho "$@"\n')
    program.chmod(0o755)
    ready.touch()
    done = subprocess.run(
        ["make", "--no-print-directory", "ui", "PORT=5123", f"BIN={tmp_path}", f"READY={ready}", *given],
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert done.stdout.splitlines()[-1].endswith(f"--host {host} --port 5123")
    assert ("warning: whoever reaches 0.0.0.0:5123 can" in done.stderr) is warns
    assert bool(done.stderr) is warns
