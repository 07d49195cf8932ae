"""Servers started by Ray on one machine, and removal of the unused ones."""

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Final

from ray import _raylet
from ray._private import ray_constants, services
from ray._private.node import Node

_STAND_IN: Final = Path(__file__).with_name("agent_stand_in.py")
_AGENT: Final = "--dashboard_agent_command="
# Ports reported to a node by the dashboard agent. Without the dashboard's packages, the agent reports -1: no ports.
_PORTS: Final = ("METRICS_AGENT_PORT_NAME", "METRICS_EXPORT_PORT_NAME", "DASHBOARD_AGENT_LISTEN_PORT_NAME")
_PERSIST: Final = "persist_port"


@contextmanager
def replaced(owner: object, name: str, value: object) -> Iterator[None]:
    """Give an attribute another value inside the block."""
    before = getattr(owner, name)
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)


@contextmanager
def no_unused_servers() -> Iterator[None]:
    """Start Ray without the servers not used by a study. Ray would spend half of the start waiting for them.

    These are the dashboard server (a part runs even without a dashboard), the autoscaler, the process copying workers'
    output to the driver, and the dashboard agent.
    """
    unused = [name for name in ("start_api_server", "start_log_monitor", "start_monitor") if hasattr(Node, name)]
    with ExitStack() as stack:
        for name in unused:
            stack.enter_context(replaced(Node, name, _start_nothing))
        if all(hasattr(_raylet, name) for name in (*_PORTS, _PERSIST)):
            stack.enter_context(_no_dashboard_agent())
        yield


def _start_nothing(*_: object, **__: object) -> None:
    pass


@contextmanager
def _no_dashboard_agent() -> Iterator[None]:
    start = services.start_ray_process

    def without_agent(command: list[str], process_type: str, *rest: Any, **named: Any) -> Any:
        if process_type == ray_constants.PROCESS_TYPE_RAYLET:
            command = _with_stand_in(command)
        return start(command, process_type, *rest, **named)

    with replaced(services, "start_ray_process", without_agent):
        yield


def _with_stand_in(command: Sequence[str]) -> list[str]:
    """Return a node's command with our process in place of the agent, and report -1 for each agent port."""
    options = dict(word[2:].split("=", 1) for word in command if word.startswith("--") and "=" in word)
    if not {"session_dir", "node_id", _AGENT[2:-1]} <= options.keys():
        return list(command)
    persist_port: Any = getattr(_raylet, _PERSIST)
    for name in _PORTS:
        persist_port(options["session_dir"], options["node_id"], getattr(_raylet, name), -1)
    stand_in = subprocess.list2cmdline([sys.executable, "-I", "-S", str(_STAND_IN)])
    return [f"{_AGENT}{stand_in}" if word.startswith(_AGENT) else word for word in command]


@contextmanager
def servers_on_loopback() -> Iterator[None]:
    """Have Ray's servers listen on a loopback address. By default, they listen on all interfaces.

    Setting `_node_ip_address` does not help, because Ray replaces 127.0.0.1 by the network address. With this constant
    off, Ray uses loopback, as it does on systems other than Linux.
    """
    with replaced(ray_constants, "ENABLE_RAY_CLUSTER", False):
        yield
