"""A trial's settings as Ray Tune passes them on."""

from collections.abc import Mapping
from typing import Any

import ray


def resolved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """The settings, with what was put into Ray's object store so that it is not seen in Tune's own files.

    Args:
        settings: see `trainables.tune.trainable.DistillationTrainable`.
    """
    outputs = settings.get("teacher_outputs")
    return {**settings, "teacher_outputs": ray.get(outputs) if isinstance(outputs, ray.ObjectRef) else outputs}
