"""AdamW, the optimiser for language models."""

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from trainables.steps.sgd import Trainer, check_shapes, tensors_under

_BETA2: Final = 0.999
_EPSILON: Final = 1e-8
# Names in a saved state: running mean of the gradient, running mean of the squared gradient, and step count.
_SLOTS: Final = ("momentum", "variance", "steps")


class AdamWTrainer(Trainer):
    """AdamW and learning-rate schedule for one module.

    Equivalent to `torch.optim.AdamW` with two parameter groups. As in BERT's training, vectors (biases and
    normalisation gains) have no weight decay.

    Args:
        module: module to train.
        momentum: β₁; β₂ is 0.999 and ε is 1e-8.
        weight_decay: decoupled weight decay, applied to parameters with two or more dimensions.
        settings: remaining arguments of `Trainer`.

    Source:
        Loshchilov and Hutter, "Decoupled Weight Decay Regularization" (2019); Devlin et al., "BERT" (2019).
    """

    def __init__(self, module: nn.Module, *, momentum: float, weight_decay: float, **settings: Any) -> None:
        super().__init__(module, momentum=momentum, weight_decay=weight_decay, **settings)
        self._slots: dict[str, dict[str, Tensor]] = {slot: {} for slot in _SLOTS}
        matrices = [name for name, each in self.parameters.items() if each.ndim > 1]
        vectors = [name for name, each in self.parameters.items() if each.ndim <= 1]
        self._groups = ((matrices, weight_decay), (vectors, 0.0))

    @property
    def is_plain(self) -> bool:
        """Always False: no other code implements this step."""
        return False

    @torch.no_grad()
    def step(self, gradients: Any = None) -> None:
        """Take one step; parameters without a gradient keep their values and optimiser state.

        Args:
            gradients: gradients by parameter name; by default each parameter's `.grad` after a backward pass.
        """
        if gradients is None:
            gradients = self.own_gradients
        self.prepare_step(gradients)
        if not self._slots["steps"]:
            self._begin()
        for names, weight_decay in self._groups:
            moving = [name for name in names if name in gradients]
            if not moving:
                continue
            means, squares, steps = ([self._slots[slot][name] for name in moving] for slot in _SLOTS)
            adamw(
                [self.parameters[name] for name in moving],
                [gradients[name] for name in moving],
                means,
                squares,
                [],
                steps,
                fused=self._fused,
                amsgrad=False,
                beta1=self.momentum,
                beta2=_BETA2,
                lr=self.rate,
                weight_decay=weight_decay,
                eps=_EPSILON,
                maximize=False,
            )

    def _begin(self) -> None:
        for slot in _SLOTS[:2]:
            self._slots[slot] = {name: torch.zeros_like(each) for name, each in self.parameters.items()}
        self._slots["steps"] = {
            name: torch.zeros((), dtype=torch.float32, device=each.device) for name, each in self.parameters.items()
        }

    @torch.no_grad()
    def align(self) -> None:
        """Copy the running means into new memory with the memory layout of the parameters."""
        for slot in _SLOTS[:2]:
            own = self._slots[slot]
            self._slots[slot] = {n: torch.zeros_like(self.parameters[n]).copy_(each) for n, each in own.items()}
        self.moves += 1

    def state_tensors(self) -> dict[str, Tensor]:
        """Return all tensors to save, by name.

        The names are `module.*` for weights and buffers, and `momentum.*`, `variance.*` and `steps.*` for optimiser
        state.
        """
        tensors = {f"module.{name}": value for name, value in self.module.state_dict().items()}
        return tensors | {f"{slot}.{name}": each for slot, own in self._slots.items() for name, each in own.items()}

    def check_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Check that `load_state_tensors` can load these tensors.

        Raises:
            ValueError: tensors are missing, unknown or of another shape; the message lists the names.
        """
        check_shapes(tensors_under("module.", tensors), self.module.state_dict(), must_be_all=True)
        kept = {slot: tensors_under(f"{slot}.", tensors) for slot in _SLOTS}
        for slot, own in kept.items():
            numbers = {name: torch.zeros(()) for name in self.parameters}
            expected = numbers if slot == "steps" else self.parameters
            check_shapes(own, expected, must_be_all=any(kept.values()))

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Load tensors saved by `state_tensors`; the next `begin_epoch` sets the learning rate.

        Raises:
            ValueError: see `check_state_tensors`; nothing is changed in this case.
        """
        self.check_state_tensors(tensors)
        self.module.load_state_dict(tensors_under("module.", tensors))
        self._slots = {slot: tensors_under(f"{slot}.", tensors) for slot in _SLOTS}
        for name, count in self._slots["steps"].items():
            self._slots["steps"][name] = count.to(self.parameters[name].device, copy=True)
        self.align()
