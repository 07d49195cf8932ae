"""Whether a study's files travel between machines, because the nodes of the cluster share no folder."""

from pathlib import Path
from typing import Protocol

from trainables.storage.uris import is_uri, joined


class Places(Protocol):
    """The fields of a plan with places."""

    @property
    def address(self) -> str:
        """Address of the Ray cluster, or `local`."""
        ...

    @property
    def storage_path(self) -> str | None:
        """Folder or URI for checkpoints."""
        ...

    @property
    def output_dir(self) -> Path:
        """Folder for results."""
        ...


def files_travel(plan: Places) -> bool:
    """Return whether the output folder belongs to the driver's machine alone.

    This is the case on a cluster with storage for checkpoints. Teachers then travel through Ray's object store, and
    checkpoints, teacher outputs and confirmed students through the storage.
    """
    return plan.address != "local" and plan.storage_path is not None and is_uri(plan.storage_path)


def default_outputs_location(plan: Places) -> str:
    """Return where teacher outputs are stored unless the plan names a place."""
    if files_travel(plan):
        assert plan.storage_path is not None
        return joined(plan.storage_path, "teacher_outputs")
    return str(plan.output_dir / "teacher_outputs")
