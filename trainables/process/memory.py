"""Peak memory of this process, measured for each trial."""

import ctypes
import resource
import sys
from contextlib import suppress
from pathlib import Path
from typing import Final

import torch

# On Linux, `status` holds a process's peak resident memory. Writing 5 to `clear_refs` resets the peak.
_STATUS: Final = Path("/proc/self/status")
_RESET_PEAK: Final = Path("/proc/self/clear_refs")


def forget_peak_memory(device: torch.device) -> None:
    """Reset the value of `peak_memory`, because a study's trials run one after another in one process.

    Memory freed by earlier trials and kept by the allocator is returned to the system. Some systems, such as macOS,
    cannot reset the peak. There, `peak_memory` covers the whole process.
    """
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    with suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)  # glibc only
    with suppress(OSError):
        _RESET_PEAK.write_text("5", encoding="ascii")


def peak_memory(device: torch.device) -> int:
    """Return the peak memory in bytes since the last reset.

    On a CUDA device this is PyTorch's GPU memory, otherwise the process's resident memory.
    """
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    with suppress(OSError, StopIteration):
        lines = _STATUS.read_text(encoding="utf-8").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmHWM:"))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
