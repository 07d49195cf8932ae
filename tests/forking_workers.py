"""Servers that fork Ray workers, forked in tests from a process that has imported PyTorch.

`study.running.worker_server.start_server` starts an interpreter for each study. The imports take 4 s of processor time,
more than many small studies. Here they are done once, before the server of forked commands imports Ray.
"""

import json
import os
import select
import signal
import socket
import subprocess
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from study.running import worker_server
from trainables.process.environment import WORKERS, set_unless_set

# With this variable, a command starts a separate server, and the workers are child processes of the command.
OWN_SERVER = {"PESFKD_TESTS_OWN_SERVER": "1"}
IMPORTED = (*worker_server.WITHOUT_RAY, "trainables.data.digits")
LONGEST_REQUEST = 1 << 18


def start_here() -> None:
    """Fork the process that forks servers. This process and later forks of it then request servers from that process.

    Call this before Ray is imported, because Ray reads variables of each study at import.
    """
    set_unless_set(WORKERS)  # read by PyTorch at import
    for name in IMPORTED:
        import_module(name)
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    if os.fork() == 0:
        ours.close()
        _fork_servers(its)
        os._exit(0)
    its.close()
    start_afresh = worker_server.start_server

    def start_server(
        descriptors: Sequence[int], modules: Sequence[str], environment: Mapping[str, str]
    ) -> "ForkedServer | subprocess.Popen[bytes]":
        if OWN_SERVER.items() <= environment.items():
            return start_afresh(descriptors, modules, environment)
        request = {"modules": modules, "environment": dict(environment), "folder": str(Path.cwd())}
        answer, asked = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with answer, asked:
            socket.send_fds(ours, [json.dumps(request).encode()], [asked.fileno(), *descriptors])
            asked.close()
            return ForkedServer(int(answer.recv(16)))

    worker_server.start_server = start_server


class ForkedServer:
    """Server with the methods of `subprocess.Popen` that are used."""

    def __init__(self, pid: int) -> None:
        self._process: int | None = None
        with suppress(ProcessLookupError):  # it has already ended
            self._process = os.pidfd_open(pid)

    def kill(self) -> None:
        """Send SIGKILL."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._process, signal.SIGKILL)

    def wait(self) -> None:
        """Wait for the end of the process."""
        if self._process is not None:
            select.select([self._process], [], [])
            os.close(self._process)


def _fork_servers(connection: socket.socket) -> None:
    """Fork a server for each request, until all possible clients have ended."""
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in range(3, 256):  # inherited from the server of commands
        if number != connection.fileno():
            with suppress(OSError):
                os.close(number)
    while True:
        content, files, _, _ = socket.recv_fds(connection, LONGEST_REQUEST, 3)
        if not content:
            return
        if os.fork() == 0:
            connection.close()
            _become_server(json.loads(content), *files)
            os._exit(0)
        for file in files:
            os.close(file)


def _become_server(request: dict, answer: int, listener: int, lifeline: int) -> None:
    """Turn this process into the server of a request, and report the process id."""
    os.write(answer, str(os.getpid()).encode())
    os.close(answer)
    silent = os.open(os.devnull, os.O_RDWR)
    for number in range(3):
        os.dup2(silent, number)
    os.close(silent)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    worker_server.serve(listener, lifeline, request["modules"])
