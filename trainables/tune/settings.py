"""Trial settings as passed on by Ray Tune."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import ray

from trainables.tune.travel import SETTING, Travelling, localised, unpacked

_SHARED: Final = ("teacher_outputs", "user_code")
# Fetched once per process, because teachers may be large.
_travelling: dict[Any, tuple[Travelling, dict[str, Path]]] = {}


def resolved(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return the settings with everything fetched from Ray's object store, and with paths on this node.

    The stored outputs' place, the user code and the study's files are passed by reference. This keeps them out of
    Tune's files, where each trial has its settings.

    Args:
        settings: trial settings; see `trainables.tune.trainable.DistillationTrainable`.
    """
    found = {name: each for name, each in settings.items() if name != SETTING}
    if settings.get(SETTING) is not None:
        reference = settings[SETTING]
        if reference not in _travelling:
            files: Travelling = _fetched(reference)
            _travelling[reference] = files, {path: unpacked(each) for path, each in files.teachers.items()}
        found = localised(found, *_travelling[reference])
    return found | {name: _fetched(settings[name]) for name in _SHARED if name in settings}


def _fetched(value: Any) -> Any:
    return ray.get(value) if isinstance(value, ray.ObjectRef) else value
