"""Global random generators of Python, NumPy and torch, and how a piece of code uses them.

A trial seeds torch's generators alone. Code that draws from the others gives other numbers in every process.
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
        drawn: generators that the code draws from.
        seeded: generators that the code sets to a fixed seed or state.
    """

    drawn: tuple[Generator, ...]
    seeded: tuple[Generator, ...]


def use_of_generators(work: Callable[[], object]) -> GeneratorUse:
    """Run code twice with differently seeded generators, and return how it uses them. Their states are restored.

    Args:
        work: the code. Equal states after differently seeded runs mean that the code sets the seed.
    """
    first, second = (_states_around(work, seed) for seed in _SEEDS)
    used = [name for name in first if first[name][0] != first[name][1]]
    fixed = tuple(name for name in used if first[name][1] == second[name][1])
    return GeneratorUse(tuple(name for name in used if name not in fixed), fixed)


def _states_around(work: Callable[[], object], seed: int) -> dict[Generator, tuple[object, object]]:
    """Return the state of each generator before and after one run."""
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
    """Return a clause on a use of the global generators that makes trials irreproducible or alike, or an empty text.

    Args:
        use: how code uses the generators.
        remedy: generator that the code should draw from.
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
