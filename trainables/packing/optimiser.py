"""Joint SGD of several trials on one contiguous memory, with separate settings for each trial."""

from collections.abc import Mapping, Sequence
from typing import Final

import torch
from torch import Tensor

from trainables.packing.memory import Layout
from trainables.steps.sgd import Number, Trainer, sgd_step, tensors_under

_SETTINGS: Final = ("rate", "momentum", "weight_decay")


class PackedOptimiser:
    """Optimiser for the packed modules of K trials.

    These modules' weights and momenta move into one memory. `DistillationRun.own_its_memory` moves them out again.

    Args:
        trainers: for each trial, trainers by name, for the modules to update together; the students' come first.
        like: tensor with the wanted dtype and device of the memory.
        graph: trainer name. A backward pass computes the gradients of these trainers' modules. All other gradients are
            written to `gradients_of`.

    Attributes:
        leaves: leaves of the graph by parameter name, views of the memory; see `Layout.end_to_end`.
    """

    def __init__(self, trainers: Sequence[Mapping[str, Trainer]], like: Tensor, *, graph: str) -> None:
        self._trainers = trainers
        self._layout = Layout([_parameters(each) for each in trainers])
        self._parameters, self._momenta, self._gradients = (like.new_zeros(self._layout.numel) for _ in range(3))
        for number, own in enumerate(trainers):
            self._move_in(number, own)
        whole = tensors_under(f"{graph}.", self._layout.end_to_end(self._parameters))
        # A backward pass stores the gradients in `grad` of these views.
        self.leaves = {name: each.requires_grad_() for name, each in whole.items()}
        self._of_leaves = self._gradients[: sum(each.numel() for each in self.leaves.values())]
        self._settings: dict[str, Number] = {}

    def weights_of(self, name: str) -> dict[str, Tensor]:
        """Return the parameters (K, ...) of the trainers with this name, by parameter name."""
        return tensors_under(f"{name}.", self._layout.side_by_side(self._parameters))

    def gradients_of(self, name: str) -> dict[str, Tensor]:
        """Return the gradients (K, ...) of the trainers with this name, by parameter name."""
        return tensors_under(f"{name}.", self._layout.side_by_side(self._gradients))

    def begin_epoch(self) -> None:
        """Read all trainers' settings; call this after the trainers' `begin_epoch`."""
        self._settings = {name: self._spread(name) for name in _SETTINGS}

    def forget_gradients(self) -> None:
        """Clear all leaves' gradients; called before a backward pass."""
        for leaf in self.leaves.values():
            leaf.grad = None

    @torch.no_grad()
    def step(self) -> None:
        """Take one step for all trials."""
        gradients = (leaf.grad for leaf in self.leaves.values())
        # Autograd keeps the memory order of a leaf for the gradient, so gradients can be copied without reordering.
        flat = [each.as_strided((each.numel(),), (1,)) for each in gradients if each is not None]
        torch.cat(flat, out=self._of_leaves)
        sgd_step([self._parameters], [self._gradients], [self._momenta], fused=False, **self._settings)

    def _move_in(self, number: int, trainers: Mapping[str, Trainer]) -> None:
        parameters, momenta = (self._layout.own(memory, number) for memory in (self._parameters, self._momenta))
        for name, trainer in trainers.items():
            trainer.move(tensors_under(f"{name}.", parameters), tensors_under(f"{name}.", momenta))

    def _spread(self, setting: str) -> Number:
        def value(name: str, trial: int) -> float:
            number: float = getattr(self._trainers[trial][name.partition(".")[0]], setting)
            return number

        return self._layout.spread(value, self._parameters)


def _parameters(trainers: Mapping[str, Trainer]) -> dict[str, Tensor]:
    return {f"{name}.{key}": each for name, trainer in trainers.items() for key, each in trainer.parameters.items()}
