"""Random numbers from explicit seeds, independent of earlier draws in the process."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed PyTorch's global generators within the block, and restore them afterwards.

    Use it for code bound to the global generators, such as layer initialisation.

    Args:
        seed: seed of at most 63 bits.
        device: if a GPU, seed the generator of this GPU too.
    """
    gpus = [device] if device is not None and device.type == "cuda" else []
    with torch.random.fork_rng(devices=gpus):
        # torch.manual_seed would seed every GPU, and would leave the generators outside the fork changed.
        torch.default_generator.manual_seed(seed)
        if gpus:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
        yield


def generator_from(seed: int) -> torch.Generator:
    """Create a CPU generator with the given seed."""
    return torch.Generator().manual_seed(seed)
