"""On how many threads a process computes."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block this process computes on one thread, which small nets need and equal bits too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def use_one_thread() -> None:
    """Let this process compute on one thread, and by deterministic algorithms alone.

    For whoever starts the process of a trial: two processes of two threads each on two cores ran at 0.12 to
    0.5 of the speed of two of one thread.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # PyTorch would also fill every fresh tensor, lest one be read unwritten: 12 to 18% of a step of CIFAR's nets.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
