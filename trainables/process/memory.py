"""The peak memory of this process, by trial."""

import ctypes
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import torch

# Of Linux, which counts the most that a process had in memory, and begins anew when 5 is written to the other.
_STATUS: Final = Path("/proc/self/status")


_RESET_PEAK: Final = Path("/proc/self/clear_refs")


def forget_peak_memory(device: torch.device) -> None:
    """Let `peak_memory` tell of what comes now: the trials of a study follow each other in one process.

    What an earlier trial has freed, and the allocator kept, goes back to the system. Where the system cannot forget, as
    macOS cannot, `peak_memory` stays that of the whole process.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # of glibc alone
    with suppress(OSError):
        _RESET_PEAK.write_text("5", encoding="ascii")


def peak_memory(device: torch.device) -> int:
    """The most bytes in use since they were last forgotten: of a GPU's own memory, else of the process's."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration):
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
