"""Student and teacher architectures, by name."""

# Importing this package imports no torch. The names below are imported on first access.

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from trainables.models.checkpoints import (
        CheckpointInfo,
        load_checkpoint,
        read_metadata,
        save_model,
    )
    from trainables.models.interface import DistillationModel
    from trainables.models.taken_weights import CheckpointError
    from trainables.models.zoo import build_model

__all__ = [
    "CheckpointError",
    "CheckpointInfo",
    "DistillationModel",
    "build_model",
    "load_checkpoint",
    "read_metadata",
    "save_model",
]

_MODULES: Final[dict[str, str]] = {
    "CheckpointError": "taken_weights",
    "CheckpointInfo": "checkpoints",
    "DistillationModel": "interface",
    "build_model": "zoo",
    "load_checkpoint": "checkpoints",
    "read_metadata": "checkpoints",
    "save_model": "checkpoints",
}


def __getattr__(name: str) -> Any:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"{__name__}.{_MODULES[name]}"), name)
