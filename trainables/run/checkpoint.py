"""A trial's state in one file."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

from trainables.run.run import DistillationRun
from trainables.storage.tensors import StoredFileError, read_tensors, write_tensors

CHECKPOINT_FILE: Final = "trial.safetensors"
_FORMAT: Final = "pesfkd-trial-1"


class CheckpointError(ValueError):
    """A checkpoint that is damaged or belongs to another trial."""


def save_checkpoint(run: DistillationRun, folder: Path, *, notes: Mapping[str, Any] | None = None) -> Path:
    """Write the state of `run` into `folder`, in place of the one that may lie there.

    Args:
        run: the trial.
        folder: is made if it is not there.
        notes: anything that JSON holds, to be kept with the state.

    Returns:
        The file. It appears whole or not at all, and carries a checksum.
    """
    state = run.state_dict()
    path = folder / CHECKPOINT_FILE
    rates = {who: trainer.rate for who, trainer in run.trainers.items()}  # for people; a resume recomputes them
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
    """Let `run` go on from the state in `folder`.

    Returns:
        The notes that were kept with it.

    Raises:
        CheckpointError: naming the file and what is wrong with it: damaged, not there, or of another trial.
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
