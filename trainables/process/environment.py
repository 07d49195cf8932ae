"""Environment variables for Ray and trial processes."""

import os
import sys
from typing import Final

# Every training step frees and allocates a convolutional network's activations. By default, glibc returns freed memory
# to the system each time. The kernel then maps and clears the pages again, four kilobytes at a time. Keeping freed
# memory and using huge pages cut the time of a step by 15 to 22% for the CIFAR networks, and by 4% at 28 x 28 (paired,
# n = 9 to 15). Peak memory does not change. Other C libraries ignore the variable.
KEEP_FREED_MEMORY: Final = "GLIBC_TUNABLES"

WORKERS: Final = {
    # On two cores, two processes with two threads each are much slower than two processes with one thread each.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    KEEP_FREED_MEMORY: (
        "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=2000000000:glibc.malloc.mmap_threshold=2000000000"
    ),
}


def set_unless_set(names: dict[str, str]) -> None:
    """Set environment variables for this process and future child processes. Variables set by the user are kept."""
    for name, value in names.items():
        os.environ.setdefault(name, value)


def restart_as_worker() -> None:
    """Restart this program with a worker's environment, unless the environment is already set.

    Measurements then also hold for workers.
    """
    if not WORKERS.keys() <= os.environ.keys():
        # Repeats the original command line, including -m.
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], WORKERS | os.environ)  # noqa: S606
