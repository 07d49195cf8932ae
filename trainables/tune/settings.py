"""Trial settings as passed on by Ray Tune."""

from collections.abc import Mapping
from typing import Any

import ray


def resolved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with `teacher_outputs` and `user_code` fetched from Ray's object store.

    Both are passed by reference to keep them out of Tune's files, where each trial has its settings.

    Args:
        settings: trial settings; see `trainables.tune.trainable.DistillationTrainable`.
    """
    shared = {name: settings[name] for name in ("teacher_outputs", "user_code") if name in settings}
    fetched = {name: ray.get(each) if isinstance(each, ray.ObjectRef) else each for name, each in shared.items()}
    return {**settings, **fetched}
