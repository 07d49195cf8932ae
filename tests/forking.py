"""Run commands of the project in processes forked from a process with all imports done.

Importing PyTorch, Ray, MLflow and SciPy takes 7 s of processor time, more than many small studies. A forked process has
separate arguments, environment, working directory, standard streams and process id. Only the imports are shared.

`python -m tests.forking SOCKET` is the server. `Forked` starts it once in each pytest process.
"""

import atexit
import functools
import io
import json
import os
import runpy
import select
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import traceback
from importlib import import_module
from pathlib import Path
from typing import IO, NoReturn

from study.running.worker_server import import_with_ray
from tests.forking_workers import start_here

ROOT = Path(__file__).parents[1]
IMPORTED = (
    "analysis.report.writing", "matplotlib.backends.backend_agg", "study.result.outcome", "study.running.in_process",
    "study.running.on_ray", "study.running.runner", "study.running.session", "study.stages.confirmation",
    "trainables.data.digits", "trainables.run.run", "trainables.storage.mlflow_store", "trainables.tune.trainable",
)  # fmt: skip
# Token of the Ray started by this process. A command that joins this Ray needs the token.
RAY_TOKEN = ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")
# Variables that commands do not inherit. The libraries may have read all others at import.
OWN_MATTER = ("PYTHONBREAKPOINT", *RAY_TOKEN)
READ_LATE = ("AWS_", "CUBLAS_", "COLUMNS", "PESFKD_", "PYTEST_", "RAY_TMPDIR")
LONGEST_REQUEST = 1 << 20


def may_fork(environment: dict[str, str]) -> bool:
    """Return whether a process with this environment may be forked: no variable read during imports differs."""
    same = set(environment_of_server().items())
    differing = {name for name, _ in set(environment.items()) ^ same if not name.startswith(READ_LATE)}
    if not differing:
        return True
    _, _, own = _server()
    return all(name in own and environment.get(name, own[name]) == own[name] for name in differing)


class Forked:
    """Running command with the methods of `subprocess.Popen` that the tests use.

    Args:
        module: as after `python -m`.
        arguments: after the module.
        environment: see `may_fork`.
        stdout: file descriptor for standard output, or `subprocess.DEVNULL`; None for a pipe.
        stderr: as `stdout`, for standard error.

    Attributes:
        pid: process id.
        returncode: exit code, or the negative number of the signal that ended the process; None while it runs.
    """

    def __init__(
        self, module: str, arguments: list[str], environment: dict[str, str],
        *, stdout: int | None = None, stderr: int | None = None,
    ) -> None:  # fmt: skip
        self.args = [sys.executable, "-m", module, *arguments]
        self.returncode: int | None = None
        writers: list[int] = []

        def pipe() -> tuple[int, int]:
            reader, writer = os.pipe()
            writers.append(writer)
            return reader, writer

        self.stdout: IO[str] | None = None
        self.stderr: IO[str] | None = None
        if stdout == subprocess.DEVNULL:
            stdout = os.open(os.devnull, os.O_WRONLY)
            writers.append(stdout)
        if stdout is None:
            reader, stdout = pipe()
            self.stdout = os.fdopen(reader)
        if stderr is None:
            reader, stderr = pipe()
            self.stderr = os.fdopen(reader)
        self._status, status = pipe()
        request = {"module": module, "arguments": arguments, "environment": environment, "folder": str(Path.cwd())}
        self.pid = _fork(request, [stdout, stderr, status])
        for writer in writers:
            os.close(writer)

    def poll(self) -> int | None:
        """Return the exit code if the process has ended."""
        if self.returncode is None and select.select([self._status], [], [], 0)[0]:
            self.wait()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the end of the process and return the exit code."""
        if self.returncode is None:
            if not select.select([self._status], [], [], timeout)[0]:
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
            self.returncode = os.waitstatus_to_exitcode(int(os.read(self._status, 16)))
            os.close(self._status)
        return self.returncode

    def communicate(self, timeout: float | None = None) -> tuple[str, str]:
        """Wait for the end of the process and return the text from both pipes."""
        deadline = time.monotonic() + (1e9 if timeout is None else timeout)
        said = {"stdout": "", "stderr": ""}

        def read(name: str, file: IO[str]) -> None:
            with file:
                said[name] = file.read()

        files = [(name, file) for name in said if (file := getattr(self, name)) is not None and not file.closed]
        readers = [threading.Thread(target=read, args=each, daemon=True) for each in files]
        for reader in readers:
            reader.start()
        self.wait(timeout)
        for reader in readers:
            reader.join(max(deadline - time.monotonic(), 0))
            if reader.is_alive():
                raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return said["stdout"], said["stderr"]

    def send_signal(self, number: int) -> None:
        """Send a signal to the process if it has not ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)


def environment_to_inherit() -> dict[str, str]:
    """Return the environment of this process without the variables of a Ray that it started."""
    return {name: value for name, value in os.environ.items() if name not in OWN_MATTER}


@functools.cache
def environment_of_server() -> dict[str, str]:
    """Return the environment of the server, cached at the first call, before any test sets a variable."""
    return environment_to_inherit()


Process = Forked | subprocess.Popen[str]


@functools.cache
def _server() -> tuple[socket.socket, "subprocess.Popen[bytes]", dict[str, str]]:
    """Start the server. Return the connection to it, the process, and the variables set by its imports."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with its:
        command = [sys.executable, "-m", "tests.forking", str(its.fileno())]
        server = subprocess.Popen(
            command, cwd=ROOT, env=environment_of_server(), pass_fds=[its.fileno()], stdin=subprocess.DEVNULL
        )
    return ours, server, json.loads(ours.recv(LONGEST_REQUEST))


def _fork(request: dict[str, object], files: list[int]) -> int:
    """Have the server fork a process and return the process id."""
    connection, _, _ = _server()
    socket.send_fds(connection, [json.dumps(request).encode()], files)
    answer = connection.recv(16)
    assert answer, "the server of forked commands has ended"
    return int(answer)


def _serve(connection: socket.socket) -> None:
    """Import everything, then serve requests for commands until the connection closes."""
    before = dict(os.environ)
    start_here()
    import_module("study.running.cluster")  # sets variables that Ray reads at import
    import_with_ray(IMPORTED)
    from tests.mlflow_tables import made_once  # imports MLflow

    folder = Path(tempfile.mkdtemp(prefix="pesfkd-tests-"))
    with made_once(folder):
        _serve_commands(connection, before)
    shutil.rmtree(folder)


def _serve_commands(connection: socket.socket, before: dict[str, str]) -> None:
    """Fork a command for each request until the connection closes."""
    # Variables that our modules set at import, for Ray and other libraries.
    own = {name: value for name, value in os.environ.items() if before.get(name) != value}
    connection.send(json.dumps(own).encode())
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # no zombies: nobody waits for the forked processes
    while True:
        content, files, _, _ = socket.recv_fds(connection, LONGEST_REQUEST, 3)
        if not content:
            return
        if os.fork() == 0:
            _wait_for_command(connection, json.loads(content), files, own)
        for file in files:
            os.close(file)


def _wait_for_command(connection: socket.socket, request: dict, files: list[int], own: dict[str, str]) -> NoReturn:
    """Start a command. Report the process id to the test at once, and the exit status at the end."""
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    *streams, status = files
    process = os.fork()
    if process == 0:
        connection.close()
        os.close(status)
        _run_command(request, streams, own)
    for stream in streams:
        os.close(stream)
    connection.send(str(process).encode())
    connection.close()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _, ended = os.waitpid(process, 0)
    os.write(status, str(ended).encode())
    os._exit(0)


def _run_command(request: dict, streams: list[int], own: dict[str, str]) -> NoReturn:
    """Run `python -m MODULE ARGUMENTS` in this process, and end the process."""
    for number, stream in enumerate(streams, start=1):
        os.dup2(stream, number)
        os.close(stream)
    sys.stdout = io.TextIOWrapper(os.fdopen(1, "wb"), encoding="utf-8")
    sys.stderr = io.TextIOWrapper(os.fdopen(2, "wb"), encoding="utf-8", errors="backslashreplace", line_buffering=True)
    os.environ.clear()
    os.environ.update(request["environment"] | own)
    os.chdir(request["folder"])
    sys.argv[1:] = request["arguments"]
    sys.modules.pop(request["module"], None)
    code = 0
    try:
        runpy.run_module(request["module"], run_name="__main__", alter_sys=True)
    except SystemExit as leaving:
        if leaving.code is not None:
            code = leaving.code if isinstance(leaving.code, int) else 1
        if isinstance(leaving.code, str):
            print(leaving.code, file=sys.stderr)
    except KeyboardInterrupt:
        signal.signal(signal.SIGINT, signal.SIG_DFL)
        os.kill(os.getpid(), signal.SIGINT)
    except BaseException:
        traceback.print_exc()
        code = 1
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os._exit(code)


if __name__ == "__main__":
    _serve(socket.socket(fileno=int(sys.argv[1])))
