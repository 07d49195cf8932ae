"""Template process: imports the modules of a program once, then forks a worker for each request.

A process that computes a trial imports PyTorch, which takes seconds of processor time. A fork of a process that has
imported PyTorch already takes milliseconds, and shares the memory of the libraries.

The workers end with the template, and the template ends with the process that started it, however that process ends.
A request sends one end of a socket pair; the worker calls the given function with it. If the template has a second
thread, a fork could inherit a locked lock. The worker is then started as a new Python process.
"""

import ctypes
import json
import os
import signal
import socket
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from importlib import import_module
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any, Final

_ROOT: Final = str(Path(__file__).parents[2])
# Another module `trainables` may come first in the path of the user's script. The package handles all others.
_START: Final = (
    "import json, sys; root, *sys.path[:] = json.loads(sys.argv[1]); sys.path.insert(0, root); import trainables; "
    "del sys.path[0]; from trainables.process import forks; forks.{function}(int(sys.argv[2]), *sys.argv[3:])"
)
_FORK: Final = b"fork"
_REFUSED: Final = b"refused"
_LONGEST_ANSWER: Final = 32
_PR_SET_PDEATHSIG: Final = 1


class Fork:
    """Worker process.

    Args:
        connection: connection to the worker. Reading raises `EOFError` when the worker has ended.
        pid: process id.
    """

    def __init__(self, connection: "Connection[Any, Any]", pid: int) -> None:
        self.connection = connection
        self.pid = pid
        try:
            self._handle: int | None = os.pidfd_open(pid)
        except ProcessLookupError:  # the worker has ended already
            self._handle = None

    def kill(self) -> None:
        """End the worker at once. A worker that has ended is left alone, even if another process has the id by now."""
        if self._handle is not None:
            with suppress(ProcessLookupError):
                signal.pidfd_send_signal(self._handle, signal.SIGKILL)
            os.close(self._handle)
            self._handle = None
        self.connection.close()


class Template:
    """Template process for workers. Only for Linux.

    Args:
        entry: function for the workers, as `module:function`. Each worker calls it with its connection.
        modules: modules to import before the first fork, by name, in addition to the entry's module.
        environment: environment variables of the template and the workers.
        output: where their output goes, as for `subprocess.Popen`; by default to the streams of this process.
    """

    def __init__(
        self, entry: str, modules: Sequence[str], environment: Mapping[str, str], *, output: int | None = None
    ) -> None:
        self._output = output
        self._entry = entry
        self._environment = dict(environment)
        self._modules = modules
        self._own: list[subprocess.Popen[bytes]] = []
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = self._start("serve", theirs.fileno(), entry, *modules)

    def fork(self) -> Fork:
        """Return a new worker. The first call waits for the template's imports.

        Raises:
            OSError: no process can be started.
        """
        ours, theirs = socket.socketpair()
        with theirs:
            try:
                socket.send_fds(self._control, [_FORK], [theirs.fileno()])
                answer = self._control.recv(_LONGEST_ANSWER)
            except OSError:
                answer = b""
            if answer in (b"", _REFUSED):  # an ended template, or one that must not fork
                process = self._start("work", theirs.fileno(), self._entry, *self._modules)
                self._own.append(process)
                answer = str(process.pid).encode()
        return Fork(Connection(ours.detach()), int(answer))

    def close(self) -> None:
        """End the template and all workers."""
        self._control.close()
        for process in (self._process, *self._own):
            process.kill()
            process.wait()

    def _start(self, function: str, descriptor: int, *words: str) -> "subprocess.Popen[bytes]":
        return subprocess.Popen(  # noqa: S603 - our own interpreter and text
            [sys.executable, "-c", _START.format(function=function), json.dumps([_ROOT, *sys.path]),
             str(descriptor), str(os.getpid()), *words],
            env=self._environment, pass_fds=[descriptor], stdin=subprocess.DEVNULL, stdout=self._output,
            stderr=self._output,
        )  # fmt: skip


def serve(descriptor: int, parent: str, entry: str, *modules: str) -> None:
    """Import the modules, then fork a worker for each request, until the other end of the socket is closed.

    Args:
        descriptor: socket for requests.
        parent: process id of the parent.
        entry: function for the workers, as `module:function`.
        modules: modules to import, by name.
    """
    _end_with(int(parent))
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study handles Ctrl-C
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # ended workers are seen by their closed connection
    function = _load(entry, modules)
    control = socket.socket(fileno=descriptor)
    template = os.getpid()
    while True:
        try:
            request, descriptors, _, _ = socket.recv_fds(control, len(_FORK), 1)
        except OSError:
            return
        if request != _FORK or len(descriptors) != 1:
            return
        (worker,) = descriptors
        if count_threads() > 1:
            control.send(_REFUSED)
        elif (pid := os.fork()) == 0:
            control.close()
            _work(worker, function, template)
        else:
            control.send(str(pid).encode())
        os.close(worker)


def work(descriptor: int, parent: str, entry: str, *modules: str) -> None:
    """Run one worker in this process.

    Args:
        descriptor: the worker's socket.
        parent: process id of the parent.
        entry: function for the worker, as `module:function`.
        modules: modules to import, by name.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _work(descriptor, _load(entry, modules), int(parent))


def _load(entry: str, modules: Sequence[str]) -> Any:
    module, _, name = entry.partition(":")
    function = getattr(import_module(module), name)
    for each in modules:
        import_module(each)
    return function


def _work(descriptor: int, function: Any, parent: int) -> None:
    """Call the worker's function, then end the process without the exit handlers of the template."""
    code = 1
    try:
        _end_with(parent)
        signal.signal(signal.SIGCHLD, signal.SIG_DFL)
        with suppress(OSError):  # the system should end workers first when memory is short
            Path("/proc/self/oom_score_adj").write_text("1000", encoding="ascii")
        import_module("numpy").random.seed()  # Python's own generator is seeded after each fork
        function(Connection(descriptor))
        code = 0
    except (EOFError, ConnectionError):  # the study has ended
        code = 0
    except BaseException:
        sys.excepthook(*sys.exc_info())
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


def _end_with(parent: int) -> None:
    """Let the system kill this process when the parent ends."""
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:  # it has ended already
        os._exit(1)


def count_threads() -> int:
    """Count the threads in this process, except Arrow's allocator thread, which supports forks."""
    names = [(thread / "comm").read_text().strip() for thread in Path("/proc/self/task").iterdir()]
    return len(names) - names.count("jemalloc_bg_thd")
