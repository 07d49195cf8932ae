"""Starting Ray on this machine, or reaching a cluster that runs."""

import logging
import math
import os
import socket
import subprocess
import sys
import time
from typing import Final

from study.environment import KEEP_FREED_MEMORY, WORKERS, set_unless_set

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

from study.errors import StudyError

_SECONDS_TO_ANSWER: Final = 25
_SECONDS_BETWEEN_COUNTS: Final = 3.0
_PROBE: Final = "import ray, sys; ray.init(address=sys.argv[1], log_to_driver=False, logging_level='ERROR')"


def check_address(address: str) -> None:
    """Check that a cluster answers, before any work and within 30 seconds.

    Args:
        address: `local` (a cluster of its own on this machine), `auto`, `host:port` or `ray://host:port`.

    Raises:
        StudyError: nothing that speaks Ray answers there.
    """
    if address == "local":
        return
    advice = (
        "Give --address local, or the address that `ray start --head` printed; a cluster with token authentication, "
        "Ray's default, also needs RAY_AUTH_MODE=token and its token (RAY_AUTH_TOKEN or ~/.ray/auth_token)."
    )
    target = address.removeprefix("ray://")
    if address != "auto":
        host, _, port = target.rpartition(":")
        if not host or not port.isdigit():
            raise StudyError(f"--address {address!r} is not local, auto, host:port or ray://host:port. {advice}")
        try:
            socket.create_connection((host, int(port)), timeout=5).close()
        except OSError as error:
            raise StudyError(f"no Ray cluster answers at {address} ({error}). {advice}") from None
    # A port that is open may belong to anything, and a client that waits for it cannot be interrupted: ask from a
    # process that can be ended.
    try:
        probe = subprocess.run(  # noqa: S603 - our own interpreter and text
            [sys.executable, "-c", _PROBE, address],
            capture_output=True,
            timeout=_SECONDS_TO_ANSWER,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise StudyError(
            f"what listens at {address} did not answer as a Ray cluster within {_SECONDS_TO_ANSWER} s. {advice}"
        ) from None
    if probe.returncode != 0:
        last = probe.stderr.decode(errors="replace").strip().splitlines()[-1:] or ["no reason given"]
        raise StudyError(f"no Ray cluster answers at {address} ({last[0]}). {advice}")


def start_ray(address: str) -> None:
    """Connect to `address`, or start a cluster of this process's own on this machine (`local`).

    Raises:
        StudyError: it cannot be reached or started.
    """
    try:
        if address == "local":
            # No trial puts anything large into the object store: data are memory-mapped files.
            ray.init(
                address="local",
                include_dashboard=False,
                log_to_driver=False,
                logging_level=logging.ERROR,
                object_store_memory=128 * 2**20,
            )
        else:
            # Its nodes have been started in environments of their own; Ray itself sees to the number of threads.
            keep = {KEEP_FREED_MEMORY: os.environ[KEEP_FREED_MEMORY]}
            ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR, runtime_env={"env_vars": keep})
    except (ConnectionError, RuntimeError, OSError, ValueError) as error:
        raise StudyError(f"Ray could not be started or reached ({address}): {error}") from error


class Slots:
    """How many trials the cluster holds at once, now: nodes come and go.

    Args:
        cpus: cores a trial.
        gpus: GPUs a trial.
        at_most: never more than this.
    """

    def __init__(self, *, cpus: float, gpus: float, at_most: int | None) -> None:
        self._demand = {"CPU": cpus, "GPU": gpus}
        self._at_most = at_most
        self._asked = -math.inf
        self._slots = 1

    def check(self) -> None:
        """Check that one trial fits at all: Tune would wait for room for ever.

        Raises:
            StudyError: naming what a trial asks for and what there is.
        """
        has = ray.cluster_resources()
        for name, amount in self._demand.items():
            if has.get(name, 0.0) < amount:
                raise StudyError(
                    f"a trial asks for {amount:g} {name} and the whole cluster has {has.get(name, 0.0):g}: "
                    f"lower --{name.lower()}s-per-trial, or name another --address"
                )

    def __call__(self) -> int:
        """The number of slots, at least one; asked for anew every few seconds."""
        if time.monotonic() - self._asked > _SECONDS_BETWEEN_COUNTS:
            self._asked = time.monotonic()
            has = ray.cluster_resources()
            fits = [int(has.get(name, 0.0) / amount + 1e-9) for name, amount in self._demand.items() if amount > 0]
            self._slots = max(1, min([*fits, self._at_most or fits[0]]))
        return self._slots


def stop_ray() -> None:
    """Leave the cluster; one that this process started ends with it."""
    ray.shutdown()
