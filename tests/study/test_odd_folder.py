"""A study in a folder with characters that are special in URIs, shells and MLflow."""

import os
import sys
from pathlib import Path
from urllib.request import urlopen

import pytest
from mlflow import MlflowClient

from study.plan.resolve import load_plan
from study.sync import main as sync_main
from tests.study.inspection import assert_whole, runs_of
from tests.study.servers import free_port, running

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1200)]

CHARACTERS = "a?b %41 #c;d é+e&f'g\"h=j@k$"


def test_a_study_its_artifacts_and_the_command_that_it_prints_work_in_a_folder_of_any_name(launch, command, tmp_path):
    out = tmp_path / CHARACTERS
    smoke = ("--space", "adapter_width", "--smoke", "--max-concurrent", "1")
    done = launch(*smoke, "--name", "odd", "--output-dir", out, timeout=500)
    assert done.returncode == 0, done.stderr
    directory = out / "odd"
    assert_whole(directory)
    assert [path.name for path in tmp_path.iterdir()] == [CHARACTERS], "no second folder of a similar name"
    plan = load_plan(directory)
    assert "***" not in (directory / "plan.json").read_text()
    parent, _ = runs_of(plan)
    (printed,) = [line for line in done.stdout.splitlines() if line.startswith("compare ")]
    port = free_port()
    typed = f"exec {printed.removeprefix('compare').strip()} --port {port} --workers 1"

    def answers() -> bool:
        try:
            return bool(urlopen(f"http://127.0.0.1:{port}/health", timeout=10).status == 200)
        except OSError:
            return False

    (tmp_path / "elsewhere").mkdir()
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    server = running(
        ["bash", "-c", typed],
        answers,
        log=tmp_path / "log",
        cwd=tmp_path / "elsewhere",
        env={**os.environ, "PATH": path},
    )
    with server:
        client = MlflowClient(f"http://127.0.0.1:{port}")
        run = client.get_run(parent.info.run_id)
        assert run.info.status == "FINISHED"
        shown = f"http://127.0.0.1:{port}/get-artifact?path=plan.json&run_uuid={run.info.run_id}"
        assert urlopen(shown, timeout=60).read() == (directory / "plan.json").read_bytes()
    synced = command(sync_main, "odd", "--output-dir", out)
    assert synced.code == 0, synced.err
    assert {path.name for path in tmp_path.iterdir()} == {CHARACTERS, "elsewhere", "log"}
