"""Checkpoints of a given teacher: one path, or the paths of an ensemble separated by commas."""

from pathlib import Path


def checkpoints_of(path: Path) -> list[Path]:
    """Return the checkpoints of a teacher, with `~` expanded. A path with a comma that exists is one checkpoint."""
    if "," not in str(path) or path.exists():
        return [path]
    return [Path(each.strip()).expanduser() for each in str(path).split(",")]


def absolute_checkpoints(path: Path) -> Path:
    """Return the same checkpoints by absolute paths."""
    return Path(",".join(str(each.absolute()) for each in checkpoints_of(path)))
