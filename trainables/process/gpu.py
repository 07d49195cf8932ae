"""GPUs visible to this process, and the memory of a GPU."""

from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple, Protocol


class GpuReading(NamedTuple):
    """GPU memory, in total and as used by a trial. All sizes are in bytes.

    Args:
        name: GPU name.
        total: total memory.
        in_use: memory in use before the first trial, by other programs and by this process's context.
        context: memory of a process in addition to the trial's tensors, such as the CUDA context.
        reserved: largest memory reserved for a trial's tensors.
        largest: the trial with the largest reserved memory.
        out_of_memory: the trial without enough memory, or empty.
    """

    name: str
    total: int
    in_use: int
    context: int
    reserved: int
    largest: str
    out_of_memory: str = ""


class GpuMemory(Protocol):
    """GPU memory of this process, read step by step.

    Attributes:
        device: trial device.
        name: GPU name.
        total: GPU memory in bytes.
    """

    device: str
    name: str
    total: int

    def in_use(self) -> int:
        """Return the bytes in use on the GPU, by all programs."""
        ...

    def begin_trial(self) -> None:
        """Free earlier trials' memory, and begin a new peak."""
        ...

    def reserved(self) -> tuple[int, int]:
        """Return the bytes reserved for tensors: now, and at the trial's peak."""
        ...


class CudaMemory:
    """Memory of the first CUDA device available to this process.

    Raises:
        RuntimeError: PyTorch finds no GPU.
    """

    device = "cuda"

    def __init__(self) -> None:
        self._torch: Any = import_module("torch")
        if not self._torch.cuda.is_available():
            raise RuntimeError(f"PyTorch {self._torch.__version__} finds no GPU")
        self._torch.empty(1, device=self.device)  # creates the context
        self.name: str = self._torch.cuda.get_device_name()
        self.total: int = self._torch.cuda.mem_get_info()[1]

    def in_use(self) -> int:
        """Return the bytes in use on the GPU, by all programs."""
        free, total = self._torch.cuda.mem_get_info()
        return int(total - free)

    def begin_trial(self) -> None:
        """Free earlier trials' memory, and begin a new peak."""
        self._torch.cuda.empty_cache()
        self._torch.cuda.reset_peak_memory_stats()

    def reserved(self) -> tuple[int, int]:
        """Return the bytes reserved for tensors: now, and at the trial's peak."""
        self._torch.cuda.synchronize()
        return self._torch.cuda.memory_reserved(), self._torch.cuda.max_memory_reserved()


def count_nvidia_gpus() -> int:
    """Return the number of NVIDIA GPUs of this machine, without importing PyTorch."""
    return len(list(Path("/dev").glob("nvidia[0-9]*")))


def count_gpus() -> int:
    """Return the number of GPUs found by PyTorch for this process."""
    return int(import_module("torch").cuda.device_count())
