"""Starting Ray on this machine, or reaching a cluster that runs."""

import logging
import math
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from trainables.process.environment import KEEP_FREED_MEMORY, WORKERS, set_unless_set

# Read by Ray when it is imported or started, and inherited by the workers of a local cluster.
_ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Tune's own CSV, JSON and TensorBoard loggers double the cost of a short trial; the records replace them.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # A snapshot grows with the number of trials and nothing here reads it: the journal is what a study resumes from.
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    # One pending trial, Tune's default, would start one process after the other, and a process that becomes free
    # would take the trial of one that is still starting, so that the second core never gets one. The search itself
    # hands out no more trials than there are slots.
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # A failed trial reports no metric.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
set_unless_set(_ENVIRONMENT | WORKERS)

import ray
from ray._private import ray_constants

from study.plan.cluster_address import host_and_port
from study.running.node_code import check_node_code, shipped_code
from trainables.process.errors import StudyError

_SECONDS_TO_ANSWER: Final = 25
_SECONDS_BETWEEN_COUNTS: Final = 3.0
# The port is tried before Ray is imported. Looking up a name has no time limit of its own, so it is done here too.
_PROBE: Final = (
    "import socket, sys; address, *place = sys.argv[1:]\n"
    "if place: socket.create_connection((place[0], int(place[1])), timeout=5).close()\n"
    "import ray; ray.init(address=address, log_to_driver=False, logging_level='ERROR')"
)


def check_address(address: str) -> None:
    """Check that a cluster answers, before any work and within 30 seconds.

    Args:
        address: `local` (a cluster of its own on this machine), `auto` or `host:port`.

    Raises:
        StudyError: nothing that speaks Ray answers there.
    """
    if address == "local":
        return
    advice = (
        "Give --address local, or the address that `ray start --head` printed; a cluster with token authentication, "
        "Ray's default, also needs RAY_AUTH_MODE=token and its token (RAY_AUTH_TOKEN or ~/.ray/auth_token)."
    )
    place = map(str, host_and_port(address)) if address != "auto" else ()
    # A port that is open may belong to anything, and a client that waits for it cannot be interrupted: ask from a
    # process that can be ended.
    try:
        probe = subprocess.run(  # noqa: S603 - our own interpreter and text
            [sys.executable, "-c", _PROBE, address, *place],
            capture_output=True,
            timeout=_SECONDS_TO_ANSWER,
            check=False,
        )
    except ValueError as error:  # a host that is no text
        raise StudyError(f"no Ray cluster answers at {address!a} ({error}). {advice}") from None
    except subprocess.TimeoutExpired:
        raise StudyError(f"{address} did not answer as a Ray cluster within {_SECONDS_TO_ANSWER} s. {advice}") from None
    if probe.returncode != 0:
        last = probe.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
        raise StudyError(f"no Ray cluster answers at {address} ({last[0]}). {advice}")


def start_ray(address: str, *, ship_code: bool = False) -> None:
    """Connect to `address`, or start a cluster of this process's own on this machine (`local`).

    Args:
        address: see `check_address`.
        ship_code: whether nodes get the code from here; if not, it has to be installed on them.

    Raises:
        StudyError: it cannot be reached or started, or its nodes lack the code, or have another.
    """
    code = shipped_code() if ship_code else {}
    try:
        with _signals_kept():
            if address == "local":
                _give_token()
                with _servers_on_loopback():
                    # No trial puts anything large into the object store: data are memory-mapped files.
                    ray.init(
                        address="local",
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                        object_store_memory=128 * 2**20,
                        runtime_env=code or None,
                    )
            else:
                # Its nodes have been started in environments of their own; Ray itself sees to the number of threads.
                keep = {"env_vars": {KEEP_FREED_MEMORY: os.environ[KEEP_FREED_MEMORY]}}
                ray.init(
                    address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env={**keep, **code}
                )
    except Exception as error:  # Ray raises the bare class where its own processes take too long to start
        raise StudyError(f"Ray could not be started or reached ({address}): {error}") from error
    if address != "local" and not ship_code:
        try:
            check_node_code()
        except StudyError:
            stop_ray()
            raise


@contextmanager
def _signals_kept() -> Iterator[None]:
    # Ray takes SIGTERM for itself and would end the process in the middle of anything; a study that is told to end
    # does so tidily.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if before is not None:  # None is one that Python did not set and cannot set again
            signal.signal(signal.SIGTERM, before)


def _give_token() -> None:
    # Where there is none, Ray would write one into the home folder, which may not be there or not be writable.
    given = (os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if not any(given) and not os.path.exists(os.path.expanduser("~/.ray/auth_token")):  # noqa: PTH110, PTH111
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)


@contextmanager
def _servers_on_loopback() -> Iterator[None]:
    # Ray's servers listen on all interfaces unless the node's own address is loopback's, and `_node_ip_address` does
    # not help: it replaces 127.0.0.1 by the address of the network. This is what Ray does on other systems than Linux.
    before = ray_constants.ENABLE_RAY_CLUSTER
    ray_constants.ENABLE_RAY_CLUSTER = False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


class Slots:
    """How many trials the cluster holds at once, now: nodes come and go.

    A trial is on one node, and what it has of a GPU is of one GPU: cores of a node without GPUs are no room for trials
    that want one, and two trials of 0.4 fit on each GPU, not five on two.

    Args:
        cpus: cores a trial.
        gpus: GPUs a trial.
        at_most: never more than this.
        workers: of a trial, each with so many cores and GPUs; they may be on several nodes.
    """

    def __init__(self, *, cpus: float, gpus: float, at_most: int | None, workers: int = 1) -> None:
        self._workers = workers
        self._demand = {"CPU": cpus, "GPU": gpus}
        self._at_most = at_most
        self._asked = -math.inf
        self._slots = 1

    def check(self) -> None:
        """Check that one trial fits at all: Tune would wait for room for ever.

        Raises:
            StudyError: naming what a trial asks for and what there is.
        """
        nodes = _nodes()
        for name, amount in self._demand.items():
            most = max((node.get(name, 0.0) for node in nodes), default=0.0)
            if most < amount:
                raise StudyError(
                    f"a trial asks for {amount:g} {name} and the largest node has {most:g}: "
                    f"lower --{name.lower()}s-per-trial, or name another --address"
                )
        fits = sum(_fitting(node, self._demand) for node in nodes)
        if fits < self._workers:
            raise StudyError(
                f"a trial has {self._workers} workers and the whole cluster holds {fits}: lower --workers-per-trial, "
                "or name another --address"
            )

    def __call__(self) -> int:
        """The number of slots, at least one; asked for anew every few seconds."""
        if time.monotonic() - self._asked > _SECONDS_BETWEEN_COUNTS:
            self._asked = time.monotonic()
            fits = sum(_fitting(node, self._demand) for node in _nodes()) // self._workers
            self._slots = max(1, min(fits, self._at_most or fits))
        return self._slots


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def _fitting(has: dict[str, float], demand: dict[str, float]) -> int:
    """How many trials fit on a node."""
    fits = []
    for name, amount in demand.items():
        if 0 < amount < 1 and name == "GPU":
            fits.append(int(has.get(name, 0.0)) * int(1 / amount + 1e-9))
        elif amount > 0:
            fits.append(int(has.get(name, 0.0) / amount + 1e-9))
    return min(fits)


def stop_ray() -> None:
    """Leave the cluster; one that this process started ends with it."""
    ray.shutdown()
