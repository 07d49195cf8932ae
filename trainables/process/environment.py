"""The environment in which Ray and the processes of trials are started."""

import os
import sys
from typing import Final

# Activations of convolutional nets are freed and allocated anew in every step. As it comes, glibc returns them to the
# system each time, and their pages are faulted in and cleared again, four kilobytes at a time. Keeping them, and huge
# pages, take 15 to 22% off a step of CIFAR's nets, 4% at 28 x 28 (paired, n = 9 to 15); the peak of memory stays.
# Other C libraries take no notice.
KEEP_FREED_MEMORY: Final = "GLIBC_TUNABLES"

WORKERS: Final = {
    # Two processes of two threads each on two cores run at a fraction of two of one thread.
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    KEEP_FREED_MEMORY: (
        "glibc.malloc.hugetlb=1:glibc.malloc.trim_threshold=2000000000:glibc.malloc.mmap_threshold=2000000000"
    ),
}


def set_unless_set(names: dict[str, str]) -> None:
    """Put `names` into this process's environment, for those it will start; what the user has set stays."""
    for name, value in names.items():
        os.environ.setdefault(name, value)


def restart_as_worker() -> None:
    """Start this program anew as a worker is started, unless it was: what is measured here is to hold there."""
    if not WORKERS.keys() <= os.environ.keys():
        # As it was called, with -m and all.
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], WORKERS | os.environ)  # noqa: S606
