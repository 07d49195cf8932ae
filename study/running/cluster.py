"""Starting Ray on this machine, or connecting to a running cluster."""

import logging
import math
import os
import secrets
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from functools import cache
from typing import Final

from trainables.process.environment import KEEP_FREED_MEMORY, WORKERS, set_unless_set

# Read by Ray on import or start, and inherited by the workers of a local cluster.
_ENVIRONMENT: Final = {
    "RAY_USAGE_STATS_ENABLED": "0",
    # Tune's CSV, JSON and TensorBoard loggers double the cost of a short trial. The records replace them.
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Snapshots grow with the number of trials and are never read: a study resumes from the journal.
    "TUNE_GLOBAL_CHECKPOINT_S": "86400",
    # With one pending trial, Tune's default, processes would start one after the other. A free process would then take
    # a trial intended for a process still starting, and the second core would stay idle. The search limits the number
    # of trials to the number of slots.
    "TUNE_MAX_PENDING_TRIALS_PG": "10000",
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    # Tune's newer output prints a table on stdout even if all output is disabled.
    "RAY_AIR_NEW_OUTPUT": "0",
    # A failed trial reports no metric.
    "TUNE_DISABLE_STRICT_METRIC_CHECKING": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}
set_unless_set(_ENVIRONMENT | WORKERS)

import ray
from ray._private.parameter import RayParams

from study.plan.cluster_address import host_and_port
from study.running.node_code import check_node_code, shipped_code
from study.running.ray_servers import no_unused_servers, replaced, servers_on_loopback
from study.running.worker_server import START_SCRIPT, worker_server
from study.running.worker_start import ADDRESS
from trainables.process.errors import StudyError

# Identifiers of nodes on which no trial may run; see `study.running.node_watch`.
unusable_nodes: Final[set[str]] = set()
_worker_servers: Final = ExitStack()  # closed when Ray is stopped
_SECONDS_TO_ANSWER: Final = 25
_SECONDS_BETWEEN_COUNTS: Final = 3.0
# The port is tried before Ray is imported. A name lookup has no time limit, so the probe includes the lookup.
_PROBE: Final = (
    "import socket, sys; address, *place = sys.argv[1:]\n"
    "if place: socket.create_connection((place[0], int(place[1])), timeout=5).close()\n"
    "import ray; ray.init(address=address, log_to_driver=False, logging_level='ERROR')"
)


def check_address(address: str) -> None:
    """Check that a cluster answers, within 30 seconds and before any work.

    Args:
        address: `local` (a new cluster on this machine), `auto` or `host:port`.

    Raises:
        StudyError: no Ray cluster answers at the address.
    """
    if address == "local":
        return
    advice = (
        "Give --address local, or the address that `ray start --head` printed; a cluster with token authentication, "
        "Ray's default, also needs RAY_AUTH_MODE=token and its token (RAY_AUTH_TOKEN or ~/.ray/auth_token)."
    )
    place = map(str, host_and_port(address)) if address != "auto" else ()
    # An open port may belong to any server, and a Ray client waiting for an answer cannot be interrupted. The probe
    # therefore runs in a separate process, which can be killed.
    try:
        probe = subprocess.run(  # noqa: S603 - our own interpreter and text
            [sys.executable, "-c", _PROBE, address, *place],
            capture_output=True,
            timeout=_SECONDS_TO_ANSWER,
            check=False,
        )
    except ValueError as error:  # invalid host name for encoding
        raise StudyError(f"no Ray cluster answers at {address!a} ({error}). {advice}") from None
    except subprocess.TimeoutExpired:
        raise StudyError(f"{address} did not answer as a Ray cluster within {_SECONDS_TO_ANSWER} s. {advice}") from None
    if probe.returncode != 0:
        last = probe.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
        raise StudyError(f"no Ray cluster answers at {address} ({last[0]}). {advice}")


def start_ray(address: str, *, ship_code: bool = False, modules: Sequence[str] = ()) -> None:
    """Connect to `address`, or start a local cluster owned by this process (`local`).

    Args:
        address: see `check_address`.
        ship_code: whether nodes receive the code from this machine. If False, the code must be installed on the nodes.
        modules: modules for the workers of a local cluster, in addition to the modules for every trial; see
            `worker_server`.

    Raises:
        StudyError: Ray cannot be reached or started, or nodes lack the code or have different code.
    """
    set_unless_set(_ENVIRONMENT | WORKERS)  # an earlier study may have restored the environment
    code = shipped_code() if ship_code else {}
    try:
        with _signals_kept():
            if address == "local":
                _give_token()
                address_of_server = _worker_servers.enter_context(worker_server(modules))
                with servers_on_loopback(), no_unused_servers(), _workers_started_by(address_of_server):
                    # A small store is enough: trials put nothing large into it, because data are memory-mapped files.
                    ray.init(
                        address="local",
                        include_dashboard=False,
                        log_to_driver=False,
                        logging_level=logging.ERROR,
                        object_store_memory=128 * 2**20,
                        runtime_env=code or None,
                    )
            else:
                # The nodes were started in other environments. Ray sets the number of threads.
                keep = {"env_vars": {KEEP_FREED_MEMORY: os.environ[KEEP_FREED_MEMORY]}}
                ray.init(
                    address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env={**keep, **code}
                )
    except Exception as error:  # Ray raises a bare Exception if Ray processes start too slowly
        stop_ray()
        raise StudyError(f"Ray could not be started or reached ({address}): {error}") from error
    except BaseException:  # Ctrl-C; the process may go on, as a notebook does
        stop_ray()
        raise
    if address != "local" and not ship_code:
        try:
            check_node_code()
        except BaseException:
            stop_ray()
            raise


@contextmanager
def _signals_kept() -> Iterator[None]:
    # Ray replaces the SIGTERM handler and would end the process at any point. A study asked to end stops cleanly.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    except SystemExit as error:
        if error.code == signal.SIGTERM:  # by Ray's handler, while Ray starts
            raise KeyboardInterrupt from error
        raise
    finally:
        if before is not None:  # None: a handler not set by Python, which cannot be restored
            signal.signal(signal.SIGTERM, before)


def _give_token() -> None:
    # Without a token, Ray would write one to the home folder, which may be missing or read-only.
    given = (os.environ.get(name) for name in ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"))
    if not any(given) and not os.path.exists(os.path.expanduser("~/.ray/auth_token")):  # noqa: PTH110, PTH111
        os.environ["RAY_AUTH_TOKEN"] = _own_token()


@cache
def _own_token() -> str:
    return secrets.token_hex(32)  # one per process, because Ray reads the variable once


@contextmanager
def _workers_started_by(server: str | None) -> Iterator[None]:
    # Without the parameter, Ray uses its own script. Ray passes the environment of the first Ray process to the script.
    if server is None:
        yield
        return
    os.environ[ADDRESS] = server
    fill_in = RayParams.update_if_absent

    def with_our_script(self: RayParams, **parameters: object) -> None:
        fill_in(self, **{**parameters, "setup_worker_path": str(START_SCRIPT)})

    try:
        with replaced(RayParams, "update_if_absent", with_our_script):
            yield
    finally:
        del os.environ[ADDRESS]


class Slots:
    """Number of trials that fit on the cluster now. Nodes may join or leave.

    A trial, or each worker of a trial, runs on one node, and a GPU share cannot span two GPUs. Cores on a node without
    GPUs are therefore unusable for trials with a GPU. Likewise, two trials with 0.4 GPUs fit on each GPU, and not five
    on two GPUs.

    Args:
        cpus: cores per trial, or per worker.
        gpus: GPUs per trial, or per worker.
        at_most: upper limit.
        workers: workers per trial. A trial's workers may be on several nodes.

    Attributes:
        demand: resources per trial, or per worker, by Ray's names.
    """

    def __init__(self, *, cpus: float, gpus: float, at_most: int | None, workers: int = 1) -> None:
        self._workers = workers
        self.demand = {"CPU": cpus, "GPU": gpus}
        self._at_most = at_most
        self._asked = -math.inf
        self._slots = 1

    def check(self) -> None:
        """Check that one trial fits on the cluster. Otherwise Tune would wait forever.

        Raises:
            StudyError: a trial does not fit. The message names the demand and the available resources.
        """
        nodes = _nodes()
        for name, amount in self.demand.items():
            most = max((node.get(name, 0.0) for node in nodes), default=0.0)
            if most < amount:
                raise StudyError(
                    f"a trial asks for {amount:g} {name} and the largest node has {most:g}: "
                    f"lower --{name.lower()}s-per-trial, or name another --address"
                )
        fits = sum(fitting(node, self.demand) for node in nodes)
        if fits < self._workers:
            raise StudyError(
                f"a trial has {self._workers} workers and the whole cluster holds {fits}: lower --workers-per-trial, "
                "or name another --address"
            )

    def __call__(self) -> int:
        """Return the number of slots, at least one. The count is refreshed every three seconds."""
        if time.monotonic() - self._asked > _SECONDS_BETWEEN_COUNTS:
            self._asked = time.monotonic()
            fits = sum(fitting(node, self.demand) for node in _nodes()) // self._workers
            self._slots = max(1, min(fits, self._at_most or fits))
        return self._slots


def _nodes() -> list[dict[str, float]]:
    return [node["Resources"] for node in ray.nodes() if node["Alive"] and node["NodeID"] not in unusable_nodes]


def fitting(has: dict[str, float], demand: dict[str, float]) -> int:
    """Return how many trials, or workers, fit on a node."""
    fits = []
    for name, amount in demand.items():
        if 0 < amount < 1 and name == "GPU":
            fits.append(int(has.get(name, 0.0)) * int(1 / amount + 1e-9))
        elif amount > 0:
            fits.append(int(has.get(name, 0.0) / amount + 1e-9))
    return min(fits)


def stop_ray() -> None:
    """Disconnect from the cluster. A cluster started by this process is shut down."""
    ray.shutdown()
    _worker_servers.close()
