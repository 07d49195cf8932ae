"""Random numbers drawn from explicit seeds, whatever else the process drew before."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Within the block PyTorch's own generators start from `seed`; after it they are as they were.

    For code that draws from the global generators and takes no other, such as the initialisation of layers.

    Args:
        seed: 63 bits at most.
        device: a GPU whose generator is seeded too.
    """
    gpus = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        # torch.manual_seed would seed every GPU, and leave those that were not forked changed.
        torch.default_generator.manual_seed(seed)
        if gpus:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def generator_from(seed: int) -> torch.Generator:
    """A CPU generator that starts from `seed`."""
    return torch.Generator().manual_seed(seed)
