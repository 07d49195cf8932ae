"""Real servers on loopback for tests. Each server is ended with all its processes."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

import psycopg
import pytest

PATIENCE = 480.0  # seconds: MLflow's server takes minutes to start on a machine with twenty jobs per core
PASSWORD = "correct-horse-7391"  # password of the database, which a study must never show


def require(found: Any, what: str) -> None:
    """Skip the test with a reason if a program is not installed. Fail instead if programs are required."""
    if found:
        return
    if os.environ.get("PESFKD_REQUIRE_PROGRAMS"):
        pytest.fail(f"{what} is required here and not installed")
    pytest.skip(f"needs {what}")


def free_port() -> int:
    """Return a port of loopback that is not in use."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@contextmanager
def running(
    command: Sequence[str | Path],
    answers: Callable[[], bool],
    *,
    log: Path,
    end_by: signal.Signals = signal.SIGTERM,
    **options: Any,
) -> Iterator["subprocess.Popen[bytes]"]:
    """Start a server in a new process group, yield it as soon as `answers` returns True, and end it afterwards."""
    with log.open("ab") as output:
        server = subprocess.Popen(
            list(map(str, command)), stdout=output, stderr=subprocess.STDOUT, start_new_session=True, **options
        )
    try:
        deadline = time.monotonic() + PATIENCE
        while not answers():
            assert server.poll() is None, log.read_text()
            assert time.monotonic() < deadline, log.read_text()
            time.sleep(0.5)
        yield server
    finally:
        _end(server, end_by)


def _end(server: subprocess.Popen[bytes], by: signal.Signals) -> None:
    """End a server's process group with a signal, or with SIGKILL after 30 s."""
    for each in (by, signal.SIGKILL):
        try:
            os.killpg(server.pid, each)
            server.wait(30)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue


def listens(port: int) -> bool:
    """Return whether something accepts connections at a port of loopback."""
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def mlflow_arguments(port: int, database: Path, artifacts: Path) -> list[str]:
    """Return the arguments of an MLflow server on loopback with these locations for database and artifacts."""
    return [
        "--host", "127.0.0.1", "--port", str(port), "--backend-store-uri", f"sqlite:///{database}",
        "--artifacts-destination", str(artifacts),
    ]  # fmt: skip


@contextmanager
def mlflow_server(
    arguments: Sequence[str],
    folder: Path,
    *,
    port: int,
    command: str = "server",
    end_by: signal.Signals = signal.SIGTERM,
) -> Iterator[str]:
    """Start an MLflow server with one worker and yield the address."""
    address = f"http://127.0.0.1:{port}"

    def answers() -> bool:
        try:
            return bool(urlopen(f"{address}/health", timeout=10).status == 200)
        except (URLError, OSError):
            return False

    started = [sys.executable, "-m", "mlflow", command, *arguments, "--workers", "1"]
    # No study uses the server's jobs, which would be eight processes with 3 s of processor time each.
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    with running(started, answers, log=folder / "mlflow.log", end_by=end_by, cwd=folder, env=environment):
        yield address


class PostgreSQL:
    """Database server on loopback.

    Args:
        port: port of the server.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    def connect(self, database: str = "postgres") -> Any:
        return psycopg.connect(
            host="127.0.0.1", port=self.port, user="owner", password=PASSWORD, dbname=database, autocommit=True
        )

    def answers(self) -> bool:
        try:
            self.connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def new_database(self, name: str) -> str:
        """Create an empty database and return the URI with the password."""
        connection = self.connect()
        connection.execute(f"CREATE DATABASE {name}")
        connection.close()
        return f"postgresql://owner:{PASSWORD}@127.0.0.1:{self.port}/{name}"


@contextmanager
def postgresql_server() -> Iterator[PostgreSQL]:
    """Start PostgreSQL on a temporary folder. PostgreSQL refuses to run as root, so root runs it as `postgres`."""
    programs = _postgresql_programs()
    require(programs, "PostgreSQL (apt-get install postgresql)")
    assert programs is not None
    folder = Path(tempfile.mkdtemp(prefix="pesfkd-postgresql-"))  # pytest's folders are closed to other users
    who: dict[str, Any] = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.geteuid() == 0 else {}
    try:
        (folder / "password").write_text(PASSWORD)
        if who:
            shutil.chown(folder, "postgres", "postgres")
            shutil.chown(folder / "password", "postgres", "postgres")
        subprocess.run(
            [programs / "initdb", "-D", folder / "data", "--username=owner", f"--pwfile={folder / 'password'}",
             "--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"],
            check=True, capture_output=True, cwd=folder, **who,
        )  # fmt: skip
        server = PostgreSQL(free_port())
        command = [
            programs / "postgres",
            "-D",
            folder / "data",
            "-h",
            "127.0.0.1",
            "-p",
            str(server.port),
            "-k",
            folder,
        ]
        # SIGINT is a fast shutdown, which does not wait for clients.
        with running(command, server.answers, log=folder / "log", end_by=signal.SIGINT, cwd=folder, **who):
            yield server
    finally:
        shutil.rmtree(folder)


def _postgresql_programs() -> Path | None:
    """Return the folder of PostgreSQL's programs, or None."""
    found = shutil.which("initdb")
    if found is not None:
        return Path(found).parent
    versions = Path("/usr/lib/postgresql").glob("*/bin/initdb")  # Debian does not put them on the PATH
    return max((path.parent for path in versions), key=lambda path: int(path.parent.name), default=None)
