"""Random numbers from explicit seeds, independent of earlier draws in the process."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import torch

# PyTorch holds a generator's lock while it makes the Python object for the state. Making an object may hand the
# interpreter to another thread. If that thread waits for the generator's lock without giving the interpreter back,
# both wait for ever.
_ONE_AT_A_TIME: Final = threading.Lock()


@contextmanager
def seeded(seed: int, device: torch.device | None = None) -> Iterator[None]:
    """Seed PyTorch's global generators within the block, and restore them afterwards.

    Use it for code bound to the global generators, such as layer initialisation.

    Args:
        seed: seed of at most 63 bits.
        device: if a GPU, seed the generator of this GPU too.
    """
    gpus = [device] if device is not None and device.type == "cuda" else []
    fork = torch.random.fork_rng(devices=gpus)
    with _ONE_AT_A_TIME:
        fork.__enter__()
        # torch.manual_seed would seed every GPU, and would leave the generators outside the fork changed.
        torch.default_generator.manual_seed(seed)
        if gpus:
            with torch.cuda.device(device):
                torch.cuda.manual_seed(seed)
    try:
        yield
    finally:
        with _ONE_AT_A_TIME:
            fork.__exit__(None, None, None)


def generator_from(seed: int) -> torch.Generator:
    """Create a CPU generator with the given seed."""
    return torch.Generator().manual_seed(seed)
