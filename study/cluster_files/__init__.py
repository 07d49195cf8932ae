"""Templates for starting a cluster and a study: `ray up`, KubeRay, Slurm. Copy and adapt them."""

from importlib.resources import files
from typing import Final

CLUSTER_FILES: Final = {
    "ray": ("ray-cluster.yaml", "your own machines over ssh, for `ray up`"),
    "kubernetes": ("rayjob.yaml", "a KubeRay RayJob, for `kubectl apply`"),
    "slurm": ("slurm.sbatch", "a batch script, for `sbatch`"),
}


def read_cluster_file(name: str) -> str:
    """Return a template's text.

    Args:
        name: key of `CLUSTER_FILES`.
    """
    return (files(__name__) / CLUSTER_FILES[name][0]).read_text(encoding="utf-8")
