"""Number of computing threads of a process."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Compute on one thread within the block, for speed on small networks and for bit-identical results."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def use_one_thread() -> None:
    """Restrict this process to one thread and to deterministic algorithms.

    Call this at the start of a trial's process. On two cores, two processes with two threads each ran at 0.12 to 0.5 of
    the speed of two processes with one thread each.
    """
    torch.set_num_threads(1)
    # The same as `torch.use_deterministic_algorithms(True)`, which also imports the compiler: 2 s in every process.
    torch.set_deterministic_debug_mode("error")
    # PyTorch would also fill every new tensor, in case one is read before it is written. This costs 12 to 18% of a step
    # for the CIFAR networks.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


@contextmanager
def restored_threads() -> Iterator[None]:
    """Undo the effect of `use_one_thread` at the end of the block, for processes with other work afterwards."""
    threads = torch.get_num_threads()
    deterministic = torch.get_deterministic_debug_mode()
    fills = torch.utils.deterministic.fill_uninitialized_memory  # type: ignore[attr-defined]
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        torch.set_deterministic_debug_mode(deterministic)
        torch.utils.deterministic.fill_uninitialized_memory = fills  # type: ignore[attr-defined]
