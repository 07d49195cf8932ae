"""Checkpoints of a given teacher: one path, or an ensemble's paths separated by commas."""

from pathlib import Path


def checkpoints_of(path: Path) -> list[Path]:
    """Return a teacher's checkpoints, with `~` expanded. An existing path with a comma is one checkpoint."""
    if "," not in str(path) or path.exists():
        return [path]
    return [Path(each.strip()).expanduser() for each in str(path).split(",")]


def absolute_checkpoints(path: Path) -> Path:
    """Return the same checkpoints by absolute paths."""
    return Path(",".join(str(each.absolute()) for each in checkpoints_of(path)))
