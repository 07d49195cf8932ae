"""Layout of several similar trials' parameters in one contiguous tensor.

Each parameter name has a block in the memory, and each trial has a part of this block. The packed network and the
trials' own modules hold views of the same numbers, so reading a trial's state needs no copy. Adapters with unequal
width get equal parts, sized for the widest one. The padding is zero and stays zero, because it receives zero gradients.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor


class _Place(NamedTuple):
    """Block of a parameter: `trials` parts of shape `size` with `strides`, beginning at offset `start`."""

    start: int
    trials: int
    size: tuple[int, ...]
    strides: tuple[int, ...]
    own_sizes: tuple[tuple[int, ...], ...]

    @property
    def numel(self) -> int:
        return torch.Size(self.size).numel()


class Layout:
    """Assignment of memory numbers to parameters and trials.

    Args:
        parameters: each trial's parameters by name; all trials have the same names in the same order.
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

    def side_by_side(self, memory: Tensor) -> dict[str, Tensor]:
        """Return views of every parameter as (K, *size)."""
        return {
            name: memory.as_strided((place.trials, *place.size), (place.numel, *place.strides), place.start)
            for name, place in self._places.items()
        }

    def end_to_end(self, memory: Tensor) -> dict[str, Tensor]:
        """Return views of every parameter as (K · size[0], *size[1:]), the layout of grouped convolutions."""
        return {
            name: memory.as_strided((place.trials * place.size[0], *place.size[1:]), place.strides, place.start)
            for name, place in self._places.items()
        }

    def own(self, memory: Tensor, trial: int) -> dict[str, Tensor]:
        """Return views of one trial's parameters, in the trial's own shapes."""
        return {
            name: memory.as_strided(place.own_sizes[trial], place.strides, place.start + trial * place.numel)
            for name, place in self._places.items()
        }

    def spread(self, value: Callable[[str, int], float], like: Tensor) -> float | Tensor:
        """Expand a value per (parameter name, trial) to one value per number in the memory.

        Args:
            value: function from parameter name and trial index to the value.
            like: tensor with the wanted dtype and device.

        Returns:
            Tensor (numel,), or a single number if all values are equal.
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
    """Return the strides of a dense tensor; convolution weights use channels last where faster."""
    if len(size) == 4:
        # On one core, packed steps up to 28 × 28 took 1.1 to 2.0 times as long with channels first as with them last.
        if like.device.type == "cpu":
            return torch.Size(size[1:]).numel(), 1, size[3] * size[1], size[1]
        if not like.is_contiguous() and like.is_contiguous(memory_format=torch.channels_last):
            return like.stride()
    return tuple(torch.Size(size[number + 1 :]).numel() for number in range(len(size)))
