"""Start script for worker processes of a local Ray: request a fork from `worker_server`.

The script replaces Ray's own `setup_worker.py` and takes the same arguments. It runs for every worker, so it imports
little. The process lives as long as the worker, because Ray watches this process until the worker registers.
"""

import sys

if __name__ == "__main__":
    del sys.path[0]  # this script's folder: libraries must not import modules from here

import json
import os
import resource
import signal
import socket
import struct

ADDRESS = "PESFKD_WORKER_SERVER"
LONGEST_REQUEST = 1 << 18
FORKED = b"forked"


def peer_is_me(connection: socket.socket) -> bool:
    """Return whether the process at the other end runs as the same user."""
    peer = connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return struct.unpack("3i", peer)[1] == os.getuid()


def main() -> None:
    """Start the worker."""
    address = os.environ.pop(ADDRESS)
    arguments = sys.argv[1:]
    settings = json.loads(_option("serialized-runtime-env-context", arguments) or "{}")
    plain = (
        _option("language", arguments) in (None, "PYTHON")
        and settings.get("py_executable") in (None, sys.executable)
        and not settings.get("command_prefix")
        and not settings.get("override_worker_entrypoint")
    )
    if plain:
        words = [each for each in arguments if not each.startswith(("--serialized-runtime-env-context", "--language"))]
        os.environ.update(settings.get("env_vars") or {})
        if _forked(address, words):
            return
        os.execv(sys.executable, [sys.executable, *words])  # noqa: S606
    from ray._private.workers import setup_worker

    os.execv(sys.executable, [sys.executable, setup_worker.__file__, *arguments])  # noqa: S606


def _option(name: str, arguments: list[str]) -> str | None:
    start = f"--{name}="
    return next((each.removeprefix(start) for each in arguments if each.startswith(start)), None)


def _forked(address: str, words: list[str]) -> bool:
    """Request a fork and wait until the worker ends. Return False if forking is impossible."""
    request = {
        "words": words,
        "environment": dict(os.environ),
        "folder": os.getcwd(),  # noqa: PTH109 - pathlib takes time to import
        "leads_group": os.getpgid(0) == os.getpid(),
        "niceness": os.getpriority(os.PRIO_PROCESS, 0),
        "blocked": [int(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
        "files": resource.getrlimit(resource.RLIMIT_NOFILE),
    }
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as server:
            server.connect("\0" + address)
            if not peer_is_me(server):
                return False
            socket.send_fds(server, [json.dumps(request).encode()], [0, 1, 2])
            if server.recv(len(FORKED)) != FORKED:
                return False
            server.recv(1)  # receives no data; returns after the worker has ended
            return True
    except OSError:
        return False


if __name__ == "__main__":
    main()
