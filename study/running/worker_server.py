"""Server process for forking workers of a local Ray.

Each worker would need seconds of processor time to import PyTorch, Ray and SciPy. The server imports them once, while
Ray starts. Forked workers also share this memory.

For each worker, Ray runs `worker_start.py`. This script sends a request to the server. A worker starts without a fork,
as usual in Ray, if it needs another Python or other environment variables, if the server has ended, and on systems
other than Linux. `PESFKD_FORK_WORKERS=0` disables forks.
"""

import atexit
import json
import os
import resource
import runpy
import secrets
import select
import signal
import socket
import subprocess
import sys
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Final

from study.running.worker_start import FORKED, LONGEST_REQUEST, peer_is_me

_ROOT: Final = str(Path(__file__).parents[2])
START_SCRIPT: Final = Path(__file__).with_name("worker_start.py")
SWITCH: Final = "PESFKD_FORK_WORKERS"
# A backward pass with a given gradient imports the last one.
WITHOUT_RAY: Final = ("trainables.run.run", "torch.fx.experimental.symbolic_shapes")
_WITH_RAY: Final = ("ray._private.workers", "trainables.tune.ray_tasks", "trainables.tune.trainable")
# Set by Ray for a worker, and by Tune for a trial. Ray reads these variables at import. A worker without a job accepts
# any job: Ray itself starts workers without a job in advance.
_OF_WORKER: Final = {"PL_DISABLE_FORK", "RAY_JOB_ID", "RAY_LD_PRELOAD_ON_WORKERS", "RAY_RAYLET_PID"}
_NO_JOB: Final = {"RAY_JOB_ID": "ffffffff"}
# Set by Ray for all Ray processes. Token mode is the default if there is a token.
_OF_RAY: Final = {"RAY_AUTH_MODE": "token", "SPT_NOENV": "1"}
_OOM_SCORE: Final = "RAY_worker_oom_score_adjustment"
_REFUSED: Final = b"refused"
# Another module `study` may come first in the path of the user's script. The package handles all others.
_SERVE: Final = (
    "import json, sys; root, *sys.path[:] = json.loads(sys.argv[1]); sys.path.insert(0, root); import study; "
    "del sys.path[0]; "
    "from study.running.worker_server import serve; serve(int(sys.argv[2]), int(sys.argv[3]), sys.argv[4:])"
)


@contextmanager
def worker_server(modules: Sequence[str]) -> Iterator[str | None]:
    """Run the server.

    Args:
        modules: further modules to import, by name.

    Yields:
        Value for the environment variable `ADDRESS` in `START_SCRIPT`; None if workers start without forks.
    """
    if sys.platform != "linux" or os.environ.get(SWITCH) == "0":
        yield None
        return
    address = f"pesfkd-{secrets.token_hex(16)}"
    lifeline, held = os.pipe()
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind("\0" + address)
        listener.listen(64)
        process = start_server([listener.fileno(), lifeline], modules, _OF_RAY | os.environ)
    os.close(lifeline)
    try:
        yield address
    finally:
        os.close(held)
        process.kill()
        process.wait()


def start_server(
    descriptors: Sequence[int], modules: Sequence[str], environment: Mapping[str, str]
) -> "subprocess.Popen[bytes]":
    """Start a process running `serve`.

    Args:
        descriptors: the listening socket, and one end of a pipe, on which `serve` waits.
        modules: further modules to import, by name.
        environment: environment variables for the process.
    """
    return subprocess.Popen(  # noqa: S603 - our own interpreter and text
        [sys.executable, "-c", _SERVE, json.dumps([_ROOT, *sys.path]), *map(str, descriptors), *modules],
        env=environment, pass_fds=descriptors,
        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip


def serve(listener_number: int, lifeline: int, modules: Sequence[str]) -> None:
    """Import the trial modules, then fork a worker for each request until the study ends.

    The function returns only in the server. A worker runs the requested program and exits.

    Args:
        listener_number: descriptor of the listening socket.
        lifeline: descriptor of a pipe. The study holds the other end.
        modules: further modules to import, by name.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the study handles Ctrl-C
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # Ray detects an ended worker by the closed connection
    environment = _read_early(os.environ)
    _import_all([*WITHOUT_RAY, *modules])
    listener = socket.socket(fileno=listener_number)
    raylet = None
    forks_differ = False
    files: list[int] = []
    while True:
        ready, _, _ = select.select([listener_number, lifeline], [], [])
        if lifeline in ready:
            return
        connection, _ = listener.accept()
        with suppress(OSError, ValueError, KeyError):
            content, files, _, _ = socket.recv_fds(connection, LONGEST_REQUEST, 3)
            request = json.loads(content)
            wanted = request["environment"]
            if raylet is None:
                raylet = wanted["RAY_RAYLET_PID"]
                os.environ.update({"RAY_RAYLET_PID": raylet} | _NO_JOB)
                import_with_ray(_WITH_RAY)
                forks_differ = _threads() == 1 and forks_draw_different_ids()
            same = environment == _read_early(wanted) and raylet == wanted["RAY_RAYLET_PID"]
            if not (same and forks_differ and peer_is_me(connection) and _threads() == 1):
                connection.send(_REFUSED)
            elif os.fork() == 0:
                break  # the connection stays open until this process has ended
        for file in files:
            os.close(file)
        files = []
        connection.close()
    listener.close()
    os.close(lifeline)
    try:
        _become_worker(request, files)
        connection.send(FORKED)
        runpy.run_path(request["words"][0], run_name="__main__")
        code = 0
    except SystemExit as leaving:
        code = leaving.code if isinstance(leaving.code, int) else int(leaving.code is not None)
    except BaseException:
        traceback.print_exc()
        code = 1
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)  # module teardown can take half a minute in a worker with low priority


def _import_all(modules: Sequence[str]) -> None:
    for name in modules:
        import_module(name)


def import_with_ray(modules: Sequence[str]) -> None:
    """Import modules that use Ray, in a process about to fork.

    Ray draws random ids from a private generator, seeded at the first id. Each actor class gets an id at definition,
    and Ray's own modules define some. Forks would then continue one sequence and give the same ids to different
    objects, which can end a worker at startup. During the import, these ids come from the system instead.

    Args:
        modules: module names.
    """
    actor: Any = import_module("ray.actor")
    kind = actor.ActorClassID
    actor.ActorClassID = SimpleNamespace(from_random=lambda: kind(os.urandom(kind.size())))
    try:
        _import_all(modules)
    finally:
        actor.ActorClassID = kind


def forks_draw_different_ids() -> bool:
    """Return whether two forks of this process draw different random ids from Ray."""
    return len({_id_of_fork() for _ in range(2)}) == 2


def _id_of_fork() -> bytes:
    reader, writer = os.pipe()
    fork = os.fork()
    if fork == 0:
        try:
            raylet = import_module("ray._raylet")
            os.write(writer, raylet.TaskID.for_fake_task(raylet.JobID.from_int(1)).binary())
        finally:
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader, "rb") as answer:
        drawn = answer.read()
    with suppress(ChildProcessError):  # the server ignores ended child processes
        os.waitpid(fork, 0)
    return drawn


def _read_early(environment: Mapping[str, str]) -> dict[str, str]:
    """Return the environment variables possibly read by libraries during import."""
    return {name: value for name, value in environment.items() if name not in _OF_WORKER}


def _threads() -> int:
    """Count the threads in this process, except Arrow's allocator thread, which supports forks.

    A lock held by another thread would stay locked in a fork.
    """
    names = [(thread / "comm").read_text().strip() for thread in Path("/proc/self/task").iterdir()]
    return len(names) - names.count("jemalloc_bg_thd")


def _become_worker(request: dict[str, Any], files: list[int]) -> None:
    """Take over files, environment, folder, priority and signals from the process running `START_SCRIPT`."""
    for number, file in enumerate(files):
        os.dup2(file, number)
        os.close(file)
    os.environ.clear()
    os.environ.update(request["environment"])
    os.chdir(request["folder"])
    if request["leads_group"]:
        os.setpgid(0, 0)  # Ray ends a worker's process group
    os.setpriority(os.PRIO_PROCESS, 0, request["niceness"])
    resource.setrlimit(resource.RLIMIT_NOFILE, request["files"])
    with suppress(OSError):  # the system should end workers first when memory is short
        Path("/proc/self/oom_score_adj").write_text(os.environ.get(_OOM_SCORE, "1000"))
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, request["blocked"])
    import_module("numpy").random.seed()  # Python's own generator is seeded after each fork
    sys.argv[:] = request["words"]
    sys.path.insert(0, str(Path(request["words"][0]).parent))
