"""The code on a cluster's nodes: shipped by Ray's runtime environment, or installed there and the same as here."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainables.process.errors import StudyError
from trainables.process.versions import code_digest

_PACKAGES: Final = ("study", "trainables", "search_spaces", "analysis")
# No trial reads these.
_LEFT_HERE: Final = ["__pycache__", "*.pyc", "analysis/examples", "analysis/images", "analysis/notebooks"]
_SECONDS_TO_ANSWER: Final = 120.0


def shipped_code() -> dict[str, Any]:
    """The part of a `runtime_env` that has Ray carry the four packages, as they are here, to every node."""
    folders = []
    for name in _PACKAGES:
        spec = find_spec(name)
        assert spec is not None, name
        assert spec.submodule_search_locations, name
        folders.append(spec.submodule_search_locations[0])
    return {"py_modules": folders, "excludes": _LEFT_HERE}


def check_node_code() -> None:
    """Check that every node of the cluster has this package installed, and the same one.

    A node that does not answer within two minutes is passed over: it may be busy, or just be leaving.

    Raises:
        StudyError: naming the nodes that have none, or another.
    """
    task: Any = ray.remote(_probe())
    asked = {}
    for node in ray.nodes():
        if node["Alive"]:
            there = NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)
            asked[task.options(num_cpus=0, max_retries=1, scheduling_strategy=there).remote()] = node[
                "NodeManagerAddress"
            ]
    answered, _ = ray.wait(list(asked), num_returns=len(asked), timeout=_SECONDS_TO_ANSWER)
    found = {}
    for reference in answered:
        try:
            found[asked[reference]] = ray.get(reference)
        except ray.exceptions.RayError:  # a node that has left meanwhile
            continue
    for problem, nodes in (
        ("is not installed on", sorted({node for node, digest in found.items() if digest is None})),
        ("differs from this one on", sorted({n for n, digest in found.items() if digest not in (None, code_digest())})),
    ):
        if nodes:
            raise StudyError(
                f"pesfkd {problem} {', '.join(nodes)}: install this version there, or give --ship-code, for which "
                "nodes need the dependencies alone"
            )


def _probe() -> Callable[[], str | None]:
    # A function of a function is sent as it is; one of a module is only named, and a node without it could not answer.
    def probe() -> str | None:
        try:
            from trainables.process.versions import code_digest
        except ImportError:
            return None
        return code_digest()

    return probe
