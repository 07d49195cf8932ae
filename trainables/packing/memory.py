"""The parameters of several like trials side by side in one stretch of memory, and their SGD as one.

Every parameter has its place in the stretch, and in that place every trial a part: what the packed network computes
with and what a trial's own module holds are views of the same numbers, so a trial's state needs no copying to be read.
Adapters of unequal widths have parts as large as the widest needs; what is over holds zeros and stays zero, as it gets
zero gradients.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class _Place(NamedTuple):
    """Where a parameter lies: `trials` parts of `size`, strided by `strides`, from `start` on."""

    start: int
    trials: int
    size: tuple[int, ...]
    strides: tuple[int, ...]
    own_sizes: tuple[tuple[int, ...], ...]

    @property
    def numel(self) -> int:
        return torch.Size(self.size).numel()


class Layout:
    """Which number of a stretch of memory is whose.

    Args:
        parameters: of each trial, by name; the same names in all, in order.
    """

    def __init__(self, parameters: Sequence[Mapping[str, Tensor]]) -> None:
        self._places: dict[str, _Place] = {}
        self.numel = 0
        for name, like in parameters[0].items():
            own_sizes = tuple(tuple(each[name].shape) for each in parameters)
            size = tuple(max(sizes) for sizes in zip(*own_sizes, strict=True))
            place = _Place(self.numel, len(parameters), size, _strides(like, size), own_sizes)
            self._places[name] = place
            self.numel += place.trials * place.numel

    def end_of(self, prefix: str) -> int:
        """How many numbers belong to the names that begin with `prefix`, which must be the first ones."""
        return sum(place.trials * place.numel for name, place in self._places.items() if name.startswith(prefix))

    def side_by_side(self, memory: Tensor) -> dict[str, Tensor]:
        """Every parameter (K, *size), views."""
        return {
            name: memory.as_strided((place.trials, *place.size), (place.numel, *place.strides), place.start)
            for name, place in self._places.items()
        }

    def end_to_end(self, memory: Tensor) -> dict[str, Tensor]:
        """Every parameter (K · size[0], *size[1:]), views: how convolutions in groups want it."""
        return {
            name: memory.as_strided((place.trials * place.size[0], *place.size[1:]), place.strides, place.start)
            for name, place in self._places.items()
        }

    def own(self, memory: Tensor, trial: int) -> dict[str, Tensor]:
        """The parameters of the `trial`-th, each of its own size, views."""
        return {
            name: memory.as_strided(place.own_sizes[trial], place.strides, place.start + trial * place.numel)
            for name, place in self._places.items()
        }

    def spread(self, value: Callable[[str, int], float], like: Tensor) -> float | Tensor:
        """A number for every (parameter's name, trial), one for each number of the memory.

        Returns:
            (numel,), or the number itself if it is the same everywhere.
        """
        values = {name: [value(name, trial) for trial in range(p.trials)] for name, p in self._places.items()}
        different = {each for of_trials in values.values() for each in of_trials}
        if len(different) == 1:
            return different.pop()
        parts = [
            torch.tensor(values[name], dtype=like.dtype).repeat_interleave(place.numel)
            for name, place in self._places.items()
        ]
        return torch.cat(parts).to(like.device)


def _strides(like: Tensor, size: tuple[int, ...]) -> tuple[int, ...]:
    """Of a tensor that fills its memory, a convolution's weight with the channels last where that is faster."""
    if len(size) == 4:
        # On one core a packed step with the channels first took 1.1 to 2.0 times one with them last, up to 28 × 28.
        if like.device.type == "cpu":
            return torch.Size(size[1:]).numel(), 1, size[3] * size[1], size[1]
        if not like.is_contiguous() and like.is_contiguous(memory_format=torch.channels_last):
            return like.stride()
    return tuple(torch.Size(size[number + 1 :]).numel() for number in range(len(size)))


class Sgd:
    """Momentum SGD with coupled weight decay, on whole stretches of memory: every number has rates of its own.

    The same formula as `trainables.steps.sgd.Trainer`.

    Args:
        parameters: (N,).
        momenta: (N,).
        gradients: (N,), to be filled before each step, which spoils them.
    """

    def __init__(self, parameters: Tensor, momenta: Tensor, gradients: Tensor) -> None:
        self._parameters, self._momenta, self.gradients = parameters, momenta, gradients

    @torch.no_grad()
    def step(self, *, rate: float | Tensor, momentum: float | Tensor, weight_decay: float | Tensor) -> None:
        """One step down the gradients; each number for all, or one for each (N,)."""
        _add_product(self.gradients, self._parameters, weight_decay)
        self._momenta.mul_(momentum).add_(self.gradients)
        _add_product(self._parameters, self._momenta, -rate)


def _add_product(target: Tensor, values: Tensor, factor: float | Tensor) -> None:
    if isinstance(factor, Tensor):
        target.addcmul_(values, factor)
    elif factor:
        target.add_(values, alpha=factor)
