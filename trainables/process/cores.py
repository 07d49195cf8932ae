"""Number of cores that this process may use."""

import math
import os
from pathlib import Path
from typing import Final

from trainables.process.errors import UsageError


def usable_cores() -> int:
    """Return the number of cores available to this process."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_QUOTA: Final = Path("/sys/fs/cgroup/cpu.max")


def cores_at_once() -> int:
    """Return how many cores this process may keep busy: those available, within the limit of a container."""
    cores = usable_cores()
    try:
        quota, period = _QUOTA.read_text(encoding="ascii").split()
        return max(1, min(cores, math.ceil(int(quota) / int(period))))
    except (OSError, ValueError):  # no control group, or no limit
        return cores


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
