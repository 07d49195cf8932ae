"""Settings of a trial as Ray Tune passes them on."""

from collections.abc import Mapping
from typing import Any

import ray


def resolved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with `teacher_outputs` fetched from Ray's object store.

    The teacher outputs are passed by reference to keep them out of Tune's files.

    Args:
        settings: trial settings; see `trainables.tune.trainable.DistillationTrainable`.
    """
    outputs = settings.get("teacher_outputs")
    return {**settings, "teacher_outputs": ray.get(outputs) if isinstance(outputs, ray.ObjectRef) else outputs}
