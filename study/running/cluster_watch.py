"""Detection of a lost cluster. Ray does not report this, and a driver then waits for results forever.

A study depends on two processes: the head's GCS, which every driver queries, and the raylet on the driver's machine,
which runs trials there. Both are tested for a connection every two seconds, and a test cannot block for long. Losing a
worker node does not end a study, because the trials move to other nodes.

A loss is reported to the study. The study then has some seconds to leave Ray and to finish by itself, including records
and MLflow. A call into Ray may never return at this point, so an unfinished study is ended here after some seconds. Ray
itself ends a driver without any message 60 seconds after losing the head.
"""

import errno
import socket
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import study.running.cluster  # noqa: F401 - sets Ray's environment before Ray is imported

# isort: split
import psutil  # installed with Ray
import ray

from study.plan.cluster_address import host_and_port
from trainables.process.errors import leave_at_once

# Together, these stay below the 60 seconds after which Ray ends a driver.
SECONDS_AWAY: Final = 20.0  # a remote head may be unreachable for a moment
SECONDS_TO_LEAVE: Final = 15.0
_SECONDS_FOR_LAST_WORDS: Final = 8.0
_SECONDS_BETWEEN_LOOKS: Final = 2.0  # each check writes a line to the raylet's log
_SECONDS_TO_ANSWER: Final = 4.0
_UNREACHABLE: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})


@dataclass(frozen=True)
class Cluster:
    """Addresses of the two processes needed by a study.

    Args:
        head: host and port of the head.
        raylet: the raylet's socket file on this machine; None without a socket file, as on Windows.
        node: Ray's handle for a cluster started by this process; None for an external cluster.
    """

    head: tuple[str, int]
    raylet: str | None = None
    node: Any = None


def connected_cluster(address: str) -> Cluster:
    """Return the cluster to which Ray is connected.

    Args:
        address: address in the plan.
    """
    node: Any = ray._private.worker._global_node
    raylet = str(node.raylet_socket_name)
    return Cluster(
        host_and_port(ray.get_runtime_context().gcs_address),
        raylet if raylet.startswith("/") else None,
        node if address == "local" else None,
    )


class ClusterWatch:
    """Cluster monitor, running in a background thread.

    Args:
        cluster: the cluster.
        hear: called once, from any thread, with a description of the loss.
        last_words: called before an unresponsive process is ended, for at most eight seconds.
        parting: returns the error message to show in that case.
        trouble: returns a description of another reason why the study cannot go on, or None. It must not block.
        seconds_away: tolerated time without an answer from an external head.
        seconds_to_leave: time after a loss for the process to finish or to call `dismiss`.

    Attributes:
        lost: description of the loss, or None.
    """

    def __init__(
        self,
        cluster: Cluster,
        hear: Callable[[str], None],
        *,
        last_words: Callable[[], None] = lambda: None,
        parting: Callable[[str], str] = lambda lost: lost,
        trouble: Callable[[], str | None] = lambda: None,
        seconds_away: float = SECONDS_AWAY,
        seconds_to_leave: float = SECONDS_TO_LEAVE,
    ) -> None:
        self.lost: str | None = None
        self._cluster = cluster
        self._is_own = cluster.node is not None
        self._hear = hear
        self._last_words = last_words
        self._parting = parting
        self._trouble = trouble
        self._seconds_away = seconds_away
        self._seconds_to_leave = seconds_to_leave
        self._processes: list[psutil.Process] = []
        self._ended, self._dismissed = threading.Event(), threading.Event()
        self._looking = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="cluster-watch", daemon=True)
        self._thread.start()

    def check(self) -> str | None:
        """Check the processes on this machine now. This is fast. Return a description of the loss, or None."""
        with self._looking:
            if self.lost is None:
                self._lose(self._look_here())
        return self.lost

    def end(self) -> str | None:
        """Check a last time, before leaving the cluster, and stop watching. Return the loss, or None."""
        if not self._ended.is_set():
            self.check()
        self._ended.set()
        return self.lost

    def dismiss(self) -> None:
        """Stop watching, and keep the process running even after a loss."""
        self._ended.set()
        self._dismissed.set()

    def end_processes(self) -> None:
        """Kill a local cluster's remaining processes, because Ray can no longer do so."""
        if self._is_own:
            with suppress(Exception):  # the other processes must be killed in any case
                self._cluster.node.kill_all_processes(check_alive=False, allow_graceful=False)
        for process in self._processes:
            with suppress(psutil.Error):  # already ended; psutil detects a reused process number
                process.kill()

    def _known_processes(self) -> list[psutil.Process]:
        """Return a local cluster's child processes, including trials."""
        found: list[psutil.Process] = []
        for infos in list(self._cluster.node.all_processes.values()):
            for info in infos:
                with suppress(psutil.Error):
                    found += psutil.Process(info.process.pid).children(recursive=True)
        return found

    def _watch(self) -> None:
        answered = time.monotonic()
        while self.check() is None and not self._ended.wait(_SECONDS_BETWEEN_LOOKS):
            now = time.monotonic()
            if not self._is_own:
                answered = now if _answers(self._cluster.head, is_near=False) else answered
                with self._looking:
                    self._lose(self._of_head if now - answered >= self._seconds_away else self._trouble())
            else:
                self._processes = self._known_processes() or self._processes
        if self.lost is not None:
            self._leave()

    def _lose(self, what: str | None) -> None:
        if what is not None and self.lost is None and not self._ended.is_set():
            self.lost = what
            self._hear(what)

    def _leave(self) -> None:
        assert self.lost is not None
        if self._dismissed.wait(self._seconds_to_leave):
            return
        speaking = threading.Thread(target=self._last_words, daemon=True)
        speaking.start()
        speaking.join(_SECONDS_FOR_LAST_WORDS)
        self.end_processes()
        leave_at_once(self._parting(self.lost))

    def _look_here(self) -> str | None:
        """Describe the ended local process. Return None if no process has certainly ended."""
        if self._cluster.raylet is not None and not _answers(self._cluster.raylet):
            return self._of_raylet
        return self._of_head if self._is_own and not _answers(self._cluster.head) else None

    @property
    def _of_raylet(self) -> str:
        return "the process of Ray that runs trials on this machine (raylet) ended"

    @property
    def _of_head(self) -> str:
        missing = "ended" if self._is_own else f"has not answered for {self._seconds_away:g} s"
        return f"the head of the Ray cluster (GCS, {self._cluster.head[0]}:{self._cluster.head[1]}) {missing}"


def _answers(place: tuple[str, int] | str, *, is_near: bool = True) -> bool:
    """Return whether a server accepts connections at `place`.

    On this machine (`is_near`) a slow server counts as answering.
    """
    try:
        if isinstance(place, str):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
                asking.settimeout(_SECONDS_TO_ANSWER)
                asking.connect(place)
        else:
            socket.create_connection(place, timeout=_SECONDS_TO_ANSWER).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError as error:  # other errors come from this process, e.g. no free file descriptor
        return is_near or not (isinstance(error, TimeoutError | ConnectionError) or error.errno in _UNREACHABLE)
    return True
