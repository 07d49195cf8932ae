"""Global random generators of Python, NumPy and torch, and their use by a piece of code.

A trial seeds torch's generators alone. Draws from the other generators differ in every process.
"""

import random
from collections.abc import Callable
from typing import Final, Literal, NamedTuple

import numpy as np
import torch

from trainables.process.randomness import seeded

Generator = Literal["random", "numpy.random", "torch"]
_SEEDS: Final = (40_961, 40_993)


class GeneratorUse(NamedTuple):
    """How code uses the global generators.

    Args:
        drawn: generators used for drawing.
        seeded: generators set to a fixed seed or state by the code.
    """

    drawn: tuple[Generator, ...]
    seeded: tuple[Generator, ...]


def use_of_generators(work: Callable[[], object]) -> GeneratorUse:
    """Run code twice with differently seeded generators, and return how it uses them. Their states are restored.

    Args:
        work: the code. If the states are equal after differently seeded runs, the code sets the seed.
    """
    first, second = (_states_around(work, seed) for seed in _SEEDS)
    used = [name for name in first if first[name][0] != first[name][1]]
    fixed = tuple(name for name in used if first[name][1] == second[name][1])
    return GeneratorUse(tuple(name for name in used if name not in fixed), fixed)


def _states_around(work: Callable[[], object], seed: int) -> dict[Generator, tuple[object, object]]:
    """Return each generator's state before and after one run."""
    python, legacy = random.getstate(), np.random.get_state()  # noqa: NPY002
    random.seed(seed)
    np.random.seed(seed)  # noqa: NPY002
    try:
        with seeded(seed):
            before = _states()
            work()
            after = _states()
    finally:
        random.setstate(python)
        np.random.set_state(legacy)  # noqa: NPY002
    return {name: (before[name], after[name]) for name in before}


def _states() -> dict[Generator, object]:
    _, keys, *rest = np.random.get_state(legacy=True)  # noqa: NPY002
    return {
        "random": random.getstate(),
        "numpy.random": (keys.tobytes(), *rest),  # type: ignore[union-attr]
        "torch": torch.get_rng_state().numpy().tobytes(),
    }


def misuse_of_generators(use: GeneratorUse, *, remedy: str, packed: bool = False, resets: bool = True) -> str:
    """Return a clause on a misuse of the global generators, or an empty text.

    After a misuse, trials are not reproducible, or are all alike.

    Args:
        use: how code uses the generators.
        remedy: generator to be used by the code.
        packed: whether several trials share torch's generator.
        resets: whether the code may not set a seed. Trials run it several times.
    """
    names: list[str]
    if names := [name for name in use.drawn if name != "torch"]:
        reason = "draws from the global generator of {}, which trials do not seed, so no trial could run again"
    elif packed and (names := [name for name in use.drawn if name == "torch"]):
        reason = "draws from the global generator of {}, which the trials of a pack share, so none could run again"
    elif resets and (names := list(use.seeded)):
        reason = "sets the seed of the global generator of {}, so all batches would draw equal numbers"
    else:
        return ""
    return f"{reason.format(' and '.join(names))}: {remedy}"
