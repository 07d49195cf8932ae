"""Passwords in the URIs of a study: a whole run, with all files and messages."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import pytest

from analysis.report.__main__ import main as report
from study.confirm import main as confirm
from study.export import main as export
from study.launch import main as launch_study
from study.rerun import main as rerun
from study.sync import main as sync
from tests.study.inspection import assert_whole
from tests.study.servers import free_port, mlflow_arguments, mlflow_server

SECRET = "hush@hush/08:15"
ENCODED = quote(SECRET, safe="")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[tuple[int, Path]]:
    """Start an MLflow server with a database. Yield port and folder."""
    port, folder = free_port(), tmp_path / "server"
    folder.mkdir()
    with mlflow_server(mlflow_arguments(port, folder / "mlflow.db", folder / "artifacts"), folder, port=port):
        yield port, folder


@pytest.mark.slow
def test_no_password_of_a_uri_is_written_or_said_anywhere(s3, server, launch, tmp_path):
    port, folder = server
    bucket = s3.new_bucket()
    out = tmp_path / "out"
    sessions = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))  # the path of a socket has a limited length
    arguments = (
        "--space", "adapter_width", "--smoke", "--max-concurrent", "1", "--name", "quiet", "--output-dir", out, "-v",
        f"--tracking-uri=http://someone:{ENCODED}@127.0.0.1:{port}",
        "--storage-path", s3.uri(f"{bucket}/checkpoints", user=f"someone:{ENCODED}@"),
        "--teacher-outputs-path", s3.uri(f"{bucket}/outputs", user=f"someone:{ENCODED}@"),
    )  # fmt: skip
    try:
        done = launch(*arguments, timeout=500, RAY_TMPDIR=str(sessions), PESFKD_CACHE=str(tmp_path / "cache"))
        assert done.returncode == 0, done.stderr
        assert_whole(out / "quiet", f"sqlite:///{folder}/mlflow.db")
        again = launch("--resume", "quiet", "--output-dir", out)
        assert again.returncode == 2
        assert "give --tracking-uri again" in again.stderr
        said = done.stdout + done.stderr + again.stderr
        assert not [secret for secret in (SECRET, ENCODED) if secret in said]
        places = [str(place) for place in (out, folder, tmp_path / "cache", sessions)]
        assert list(sessions.rglob("raylet.out")), "Ray's own files are looked through as well"
        written = subprocess.run(
            ["grep", "-rlaF", "-e", SECRET, "-e", ENCODED, *places], capture_output=True, text=True, check=False
        )
        assert (written.returncode, written.stdout) == (1, "")
        assert not [
            name
            for name, content in s3.objects(bucket).items()
            if SECRET.encode() in content or ENCODED.encode() in content
        ]
    finally:
        shutil.rmtree(sessions, ignore_errors=True)


@pytest.mark.parametrize("name", ["..", "../x", "a/b", "/etc/x", ".hidden", "a\\b", "a\nb", "teachers", "mlflow.db"])
def test_a_name_that_would_leave_the_output_folder_or_meet_something_else_is_refused(command, tmp_path, name):
    out = tmp_path / "out"
    begun = command(launch_study, "--space", "joint", "--name", name, "--dry-run", "--output-dir", out)
    assert begun.code == 2, begun.said
    assert "study name" in begun.err
    commands = [
        (launch_study, "--resume", name), (sync, name), (confirm, name), (export, name), (rerun, f"{name}-0000"),
        (report, name),
    ]  # fmt: skip
    for main, *words in commands:
        done = command(main, *words, "--output-dir", out)
        assert done.code == 2, (main.__module__, done.said)
    assert not list(tmp_path.iterdir())
