"""The ways in which a study refuses to go on, and the exit codes that a shell sees."""

import os
import sys
from contextlib import suppress
from enum import IntEnum
from typing import NoReturn


class ExitCode(IntEnum):
    """What `python -m study.launch` returns."""

    OK = 0
    ERROR = 1
    USAGE = 2
    FAILED_TRIALS = 3
    UNDELIVERED = 3  # the study is whole, MLflow has not all of it
    OUT_OF_TIME = 4  # the time budget is used up, and the study is not whole
    INTERRUPTED = 130


class UsageError(ValueError):
    """What was asked for cannot be done: says what was given, what is allowed and what to do."""


class StudyError(RuntimeError):
    """Something outside the request failed: a cluster, a tracking server, a disk."""


class ClusterLostError(StudyError):
    """The Ray cluster under a study is gone. What Ray does when the process ends may wait for it: leave at once."""


def leave_at_once(message: str) -> NoReturn:
    """Show an error and end the process with exit code 1, without the handlers that run when Python ends.

    Args:
        message: of the error.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    with suppress(OSError):
        os.write(2, f"error: {message}\n".encode())
    os._exit(ExitCode.ERROR)
