"""Notices that the cluster of a study is gone, which Ray does not: a driver then waits for results for ever.

A study cannot go on without two processes: the head's, which every driver asks for everything (Ray's GCS), and the one
that runs trials on the driver's own machine (Ray's raylet). A worker node that is lost is no reason to end: its trials
move. Every two seconds both are asked whether they take a connection, which cannot block for long.

What is lost is reported to the study, which then has some seconds to come out of Ray and to end by itself, records and
MLflow included. A call into Ray may never return by then. If the study does not end in time, the process is ended
here. Ray itself ends a driver without a word 60 seconds after its head went.
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
import psutil  # which Ray brings along
import ray

from study.plan.cluster_address import host_and_port
from trainables.process.errors import leave_at_once

# Nothing that answers within a minute may take longer than these together.
SECONDS_AWAY: Final = 20.0  # a head on another machine may be out of reach for a moment
SECONDS_TO_LEAVE: Final = 15.0
_SECONDS_FOR_LAST_WORDS: Final = 8.0
_SECONDS_BETWEEN_LOOKS: Final = 2.0  # each is a line in the raylet's log
_SECONDS_TO_ANSWER: Final = 4.0
_UNREACHABLE: Final = frozenset({errno.EHOSTUNREACH, errno.ENETUNREACH, errno.EHOSTDOWN, errno.ENETDOWN})


@dataclass(frozen=True)
class Cluster:
    """Where the two processes are that a study cannot go on without.

    Args:
        head: host and port of the head.
        raylet: the socket of this machine's raylet; None where it is no file, as on Windows.
        node: Ray's handle on a cluster that this process started; None for one that others run.
    """

    head: tuple[str, int]
    raylet: str | None = None
    node: Any = None


def connected_cluster(address: str) -> Cluster:
    """The cluster that Ray is connected to.

    Args:
        address: of the plan.
    """
    node: Any = ray._private.worker._global_node
    raylet = str(node.raylet_socket_name)
    return Cluster(
        host_and_port(ray.get_runtime_context().gcs_address),
        raylet if raylet.startswith("/") else None,
        node if address == "local" else None,
    )


class ClusterWatch:
    """Watches a cluster from a thread of its own.

    Args:
        cluster: what is watched.
        hear: called once with what is lost, in words, from any thread.
        last_words: what is tried for some seconds before a process that does not end by itself is ended.
        parting: the error that is shown then.
        seconds_away: how long a head that others run may be out of reach.
        seconds_to_leave: how long the process has to end by itself, or to call `dismiss`, once something is lost.

    Attributes:
        lost: what is lost, in words; None while all is there.
    """

    def __init__(
        self,
        cluster: Cluster,
        hear: Callable[[str], None],
        *,
        last_words: Callable[[], None] = lambda: None,
        parting: Callable[[str], str] = lambda lost: lost,
        seconds_away: float = SECONDS_AWAY,
        seconds_to_leave: float = SECONDS_TO_LEAVE,
    ) -> None:
        self.lost: str | None = None
        self._cluster = cluster
        self._is_own = cluster.node is not None
        self._hear = hear
        self._last_words = last_words
        self._parting = parting
        self._seconds_away = seconds_away
        self._seconds_to_leave = seconds_to_leave
        self._processes: list[psutil.Process] = []
        self._ended, self._dismissed = threading.Event(), threading.Event()
        self._looking = threading.Lock()
        self._thread = threading.Thread(target=self._watch, name="cluster-watch", daemon=True)
        self._thread.start()

    def check(self) -> str | None:
        """Look now, on this machine alone, which takes no time; what is lost, in words."""
        with self._looking:
            if self.lost is None:
                self._lose(self._look_here())
        return self.lost

    def end(self) -> str | None:
        """Look a last time, before the cluster is left, and no more."""
        if not self._ended.is_set():
            self.check()
        self._ended.set()
        return self.lost

    def dismiss(self) -> None:
        """The process goes on, whatever is lost."""
        self._ended.set()
        self._dismissed.set()

    def end_processes(self) -> None:
        """End what is left of a cluster of this process's own; Ray cannot be asked to."""
        if self._is_own:
            with suppress(Exception):  # whatever it is: others are to be ended yet
                self._cluster.node.kill_all_processes(check_alive=False, allow_graceful=False)
        for process in self._processes:
            with suppress(psutil.Error):  # it has ended, and its number may be another's: psutil knows
                process.kill()

    def _known_processes(self) -> list[psutil.Process]:
        """What the processes of an own cluster have started, trials among them."""
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
                    self._lose(self._of_head if now - answered >= self._seconds_away else None)
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
        """What ended on this machine; nobody who listens there is certain."""
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
    """Whether something takes connections there; on this machine one that takes its time to counts as well."""
    try:
        if isinstance(place, str):
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as asking:
                asking.settimeout(_SECONDS_TO_ANSWER)
                asking.connect(place)
        else:
            socket.create_connection(place, timeout=_SECONDS_TO_ANSWER).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return False
    except OSError as error:  # others are of this process, which may have no file left
        return is_near or not (isinstance(error, TimeoutError | ConnectionError) or error.errno in _UNREACHABLE)
    return True
