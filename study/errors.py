"""The two ways in which a study refuses to go on, and the exit codes that a shell sees."""

from enum import IntEnum


class ExitCode(IntEnum):
    """What `python -m study.launch` returns."""

    OK = 0
    ERROR = 1
    USAGE = 2
    FAILED_TRIALS = 3
    UNDELIVERED = 3  # the study is whole, MLflow has not all of it
    INTERRUPTED = 130


class UsageError(ValueError):
    """What was asked for cannot be done: says what was given, what is allowed and what to do."""


class StudyError(RuntimeError):
    """Something outside the request failed: a cluster, a tracking server, a disk."""
