"""Errors for stopping a study, and the exit codes of the command line."""

import os
import sys
from contextlib import suppress
from enum import IntEnum
from typing import NoReturn


class ExitCode(IntEnum):
    """Exit codes of `python -m study.launch`."""

    OK = 0
    ERROR = 1
    USAGE = 2
    FAILED_TRIALS = 3
    UNDELIVERED = 3  # the study is complete, but MLflow has not received everything
    OUT_OF_TIME = 4  # the time budget ran out before the study was complete
    INTERRUPTED = 130


class UsageError(ValueError):
    """Invalid request. The message gives the rejected value, the allowed values and a remedy."""


class StudyError(RuntimeError):
    """Failure outside the request, such as a cluster, a tracking server or a disk."""


class ClusterLostError(StudyError):
    """Loss of a study's Ray cluster.

    Ray's exit handlers may wait for the lost cluster, so end the process with `leave_at_once`.
    """


def leave_at_once(message: str) -> NoReturn:
    """Print an error and end the process with exit code 1, without running Python's exit handlers.

    Args:
        message: error message.
    """
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()
    with suppress(OSError):
        os.write(2, f"error: {message}\n".encode())
    os._exit(ExitCode.ERROR)
