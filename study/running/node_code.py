"""Code on the nodes of a cluster: shipped by Ray's runtime environment, or installed there with the same content."""

from collections.abc import Callable
from importlib.util import find_spec
from typing import Any, Final

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from trainables.process.errors import StudyError
from trainables.process.versions import code_digest

_PACKAGES: Final = ("study", "trainables", "search_spaces", "analysis")
# Not read by trials.
_LEFT_HERE: Final = ["__pycache__", "*.pyc", "analysis/examples", "analysis/images", "analysis/notebooks"]
_SECONDS_TO_ANSWER: Final = 120.0


def shipped_code() -> dict[str, Any]:
    """Return the `runtime_env` entries for copying the four packages to every node."""
    folders = []
    for name in _PACKAGES:
        spec = find_spec(name)
        assert spec is not None, name
        assert spec.submodule_search_locations, name
        folders.append(spec.submodule_search_locations[0])
    return {"py_modules": folders, "excludes": _LEFT_HERE}


def check_node_code() -> None:
    """Check that every cluster node has this package installed, with the same code.

    A node without an answer within two minutes is skipped: it may be busy or leaving.

    Raises:
        StudyError: some nodes lack the package or have different code. The message names the nodes.
    """
    task: Any = ray.remote(code_probe())
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
        except ray.exceptions.RayError:  # the node has left the cluster
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


def code_probe() -> Callable[[], str | None]:
    """Return a function for any node that returns the digest of the code there, or None if it is missing."""

    # Ray sends a nested function by value. A module-level function is sent by name, and a node without the package
    # could not load it.
    def probe() -> str | None:
        try:
            from trainables.process.versions import code_digest
        except ImportError:
            return None
        return code_digest()

    return probe
