"""Number of cores that this process may use."""

import os

from trainables.process.errors import UsageError


def usable_cores() -> int:
    """Return the number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_threads(flag: str, threads: int) -> None:
    """Check for one core per thread: a latency on more threads than cores means nothing.

    Args:
        flag: option for the number, for the message.
        threads: thread count.

    Raises:
        UsageError: there are fewer cores.
    """
    cores = usable_cores()
    if threads > cores:
        raise UsageError(f"{flag} {threads}: this process may use {cores} cores: give a number up to {cores}")
