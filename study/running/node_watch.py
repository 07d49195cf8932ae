"""Watching of a cluster's nodes during a study: nodes that join late, and a cluster without room for a trial.

A node that joins during a study is checked like the first ones. Without the same code, or without the study's storage,
every trial would fail there at once, and Ray would send it the next one. The node's cores and GPUs are therefore
reserved until the study ends.

If no node can run a trial any more, Ray would wait for ever. The study ends instead, and can be resumed.
"""

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from study.plan.plan import StudyPlan
from study.plan.travel import files_travel
from study.running.cluster import fitting, unusable_nodes
from study.running.node_code import code_probe
from trainables.process.versions import code_digest
from trainables.storage.uris import is_uri

SECONDS_WITHOUT_ROOM: Final = 30.0  # a node that only lost the connection for a moment is not given up by Ray
_SECONDS_BETWEEN_LOOKS: Final = 2.0
_SECONDS_TO_SETTLE: Final = 20.0  # after a node's check, trials that were sent there before may still fail


class NodeWatch:
    """Monitor of a cluster's nodes, in a background thread. Use as a context manager.

    Args:
        plan: the study.
        demand: resources of one trial, by Ray's names.
        warn: called with a warning about a node.
        seconds_without_room: how long a running study may be without any node for a trial.
        nodes: returns the nodes as `ray.nodes` does.
    """

    def __init__(
        self,
        plan: StudyPlan,
        demand: dict[str, float],
        warn: Callable[[str], None],
        *,
        seconds_without_room: float = SECONDS_WITHOUT_ROOM,
        nodes: Callable[[], list[dict[str, Any]]] = ray.nodes,
    ) -> None:
        self.trouble: str | None = None
        self._plan = plan
        self._demand = demand
        self._warn = warn
        self._seconds_without_room = seconds_without_room
        self._nodes = nodes
        self._known = {node["NodeID"] for node in nodes() if node["Alive"]}
        self._asked: dict[str, Any] = {}
        self._holders: dict[str, Any] = {}
        self._settled_at = -float("inf")
        self._had_room_at: float | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="node-watch", daemon=True)

    def __enter__(self) -> "NodeWatch":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        for node in self._holders:
            unusable_nodes.discard(node)
        for holder in self._holders.values():
            with suppress(Exception):  # the cluster may be lost
                ray.kill(holder)

    def is_unsettled(self) -> bool:
        """Return whether a trial may just have died because of an unusable node. The trial is not to blame then."""
        with suppress(Exception):  # the cluster may be lost
            self._look_for_new(self._nodes())
        return bool(self._asked) or time.monotonic() - self._settled_at < _SECONDS_TO_SETTLE

    def _watch(self) -> None:
        while not self._ended.wait(_SECONDS_BETWEEN_LOOKS):
            with suppress(Exception):  # an unreachable head is reported by `ClusterWatch`
                self.look()

    def look(self) -> None:
        """Look at all nodes once."""
        nodes = self._nodes()
        self._look_for_new(nodes)
        self._read_answers()
        usable = [node["Resources"] for node in nodes if node["Alive"] and node["NodeID"] not in self._holders]
        now = time.monotonic()
        if any(fitting(resources, self._demand) for resources in usable):
            self._had_room_at = now
        elif self._had_room_at is not None and now - self._had_room_at >= self._seconds_without_room:
            # At first, a cluster may still be growing.
            demand = " and ".join(f"{amount:g} {name}" for name, amount in self._demand.items() if amount)
            self.trouble = (
                f"no node of the Ray cluster can run a trial any more: a trial needs {demand}, and for "
                f"{self._seconds_without_room:g} s none of the {len(usable)} usable nodes has had that"
            )

    def _look_for_new(self, nodes: list[dict[str, Any]]) -> None:
        for node in nodes:
            if node["Alive"] and node["NodeID"] not in self._known:
                self._known.add(node["NodeID"])
                if not self._plan.ship_code:
                    there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
                    options: Any = {"num_cpus": 0, "max_retries": 1, "scheduling_strategy": there}
                    self._asked[node["NodeID"]] = node, ray.remote(code_probe()).options(**options).remote(), options

    def _read_answers(self) -> None:
        for identifier, (node, reference, options) in list(self._asked.items()):
            if not ray.wait([reference], timeout=0)[0]:
                continue
            try:
                answer = ray.get(reference)
            except ray.exceptions.RayError:  # the node has left again
                del self._asked[identifier]
                continue
            if answer == code_digest():
                reference = ray.remote(_missing).options(**options).remote(*self._places())
                self._asked[identifier] = node, reference, options
                continue
            del self._asked[identifier]
            if answer != "":
                self._hold(node, _describe(answer))

    def _places(self) -> tuple[str | None, list[str]]:
        plan = self._plan
        places = (plan.storage_path, plan.teacher_outputs_path)
        return (
            None if files_travel(plan) else str((plan.directory / "plan.json").absolute()),
            [place for place in places if place is not None and is_uri(place)],
        )

    def _hold(self, node: dict[str, Any], problem: str) -> None:
        class Holder:
            pass

        identifier, resources = node["NodeID"], node["Resources"]
        self._settled_at = time.monotonic()
        unusable_nodes.add(identifier)
        options: Any = {
            "num_cpus": resources.get("CPU", 0.0),
            "num_gpus": resources.get("GPU", 0.0),
            "scheduling_strategy": NodeAffinitySchedulingStrategy(identifier, soft=False),
        }
        self._holders[identifier] = ray.remote(Holder).options(**options).remote()
        self._warn(f"node {node['NodeManagerAddress']} joined, but {problem}. No trial runs there")


def _describe(answer: str | None) -> str:
    remedy = "install this version there and start Ray there again, or resume the study with --ship-code"
    if answer is None:
        return f"pesfkd is not installed there: {remedy}"
    if answer.startswith(_PROBLEM):
        return answer.removeprefix(_PROBLEM)
    return f"pesfkd differs there from this one: {remedy}"


_PROBLEM: Final = "problem: "


def _missing(file: str | None, storage: list[str]) -> str:
    """Return a description of the place that this node cannot use, or an empty text."""
    from trainables.storage.remote_folder import RemoteFolder, RemoteFolderError

    if file is not None and not Path(file).exists():
        return f"{_PROBLEM}it does not see {Path(file).parent}"
    for place in storage:
        try:
            RemoteFolder(place).check()
        except RemoteFolderError as error:
            return f"{_PROBLEM}it cannot use the storage ({error})"
    return ""
