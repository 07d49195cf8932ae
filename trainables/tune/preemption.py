"""Trials on nodes that are being taken away, such as spot instances.

`ray start --block` marks the node as draining when it receives SIGTERM, and waits up to 30 seconds for the node's
processes to end. Within this time, a trial's next report asks Tune for a checkpoint. The process then ends, and the
study continues the trial on another node.
"""

import time
from typing import Any, Final

import ray

PREEMPTED: Final = "preempted"  # name in a report
_SECONDS_BETWEEN_LOOKS: Final = 1.0


class Preemption:
    """Watch whether this process's node is being taken away."""

    def __init__(self) -> None:
        self._node = ray.get_runtime_context().get_node_id() if ray.is_initialized() else None
        self._looked = time.monotonic()
        self._leaves = False

    def leave_if_told(self) -> None:
        """End this process if the last report announced it. Tune has the checkpoint by then."""
        if self._leaves:
            ray.actor.exit_actor()

    def mark(self, result: dict[str, Any]) -> dict[str, Any]:
        """Return the report. If the node is being taken away, the report names the node and asks for a checkpoint."""
        if result["done"] or not self._is_draining():
            return result
        self._leaves = True
        return {**result, "should_checkpoint": True, PREEMPTED: ray.util.get_node_ip_address()}

    def _is_draining(self) -> bool:
        now = time.monotonic()
        if self._node is None or now - self._looked < _SECONDS_BETWEEN_LOOKS:
            return False
        self._looked = now
        return self._node in ray._private.state.state.get_draining_nodes()
