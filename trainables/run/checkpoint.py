"""Checkpoints: a trial's state in one file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from trainables.run.run import DistillationRun
from trainables.storage.atomic import StoredFileError
from trainables.storage.tensors import read_metadata, read_tensors, write_tensors

CHECKPOINT_FILE: Final = "trial.safetensors"
_FORMAT: Final = "pesfkd-trial-1"


class CheckpointError(ValueError):
    """Checkpoint is missing, damaged or belongs to another trial."""


def save_checkpoint(run: DistillationRun, folder: Path, *, notes: Mapping[str, Any] | None = None) -> Path:
    """Write the state of `run` to `folder`, replacing an existing checkpoint.

    Args:
        run: the trial.
        folder: checkpoint folder, created if missing.
        notes: JSON-serialisable values to store with the state.

    Returns:
        File path. The file is written atomically and has a checksum.
    """
    state = run.state_dict()
    path = folder / CHECKPOINT_FILE
    rates = {name: trainer.rate for name, trainer in run.trainers.items()}  # for people; a resume recomputes the rates
    metadata = {
        "format": _FORMAT,
        "epoch": state["epoch"],
        "identity": state["identity"],
        "learning_rates": rates,
        "notes": dict(notes or {}),
    }
    write_tensors(path, state["tensors"], metadata)
    return path


def load_checkpoint(run: DistillationRun, folder: Path) -> dict[str, Any]:
    """Load the state in `folder` into `run`.

    Returns:
        The notes stored with the state.

    Raises:
        CheckpointError: with the file and the reason, if it is damaged, missing or belongs to another trial.
    """
    path = folder / CHECKPOINT_FILE
    try:
        tensors, metadata = read_tensors(path)
    except StoredFileError as error:
        raise CheckpointError(f"cannot resume: {error}") from error
    if metadata.get("format") != _FORMAT:
        raise CheckpointError(f"{path}: its format is {metadata.get('format')!r}, expected {_FORMAT!r}")
    try:
        run.load_state_dict({"epoch": metadata["epoch"], "identity": metadata["identity"], "tensors": tensors})
    except ValueError as error:
        raise CheckpointError(f"{path}: {error}") from error
    notes: dict[str, Any] = metadata["notes"]
    return notes


def read_epoch(folder: Path) -> int | None:
    """Return the epoch of the checkpoint in `folder`, or None without a readable one. The content is not verified."""
    try:
        return int(read_metadata(folder / CHECKPOINT_FILE)["epoch"])
    except (StoredFileError, KeyError, TypeError, ValueError):
        return None
