"""AdamW, which language models are trained by."""

from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim.adamw import adamw

from trainables.steps.sgd import Trainer, check_shapes, tensors_under

_BETA2: Final = 0.999
_EPSILON: Final = 1e-8
# By what a saved state calls them: the mean gradient, the mean square, and how many steps a parameter has made.
_SLOTS: Final = ("momentum", "variance", "steps")


class AdamWTrainer(Trainer):
    """One module's AdamW and its schedule.

    The same as `torch.optim.AdamW` of two groups: as in BERT's own training, vectors (biases, gains of normalisations)
    do not decay.

    Args:
        module: what it trains.
        momentum: β₁; β₂ is 0.999 and ε 1e-8.
        weight_decay: decoupled, on matrices alone.
        settings: the rest of `Trainer`'s.

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
        """False: nobody else makes this step."""
        return False

    @torch.no_grad()
    def step(self, gradients: Any = None) -> None:
        """One step; a parameter without a gradient stays as it is, and so does what is known of it.

        Args:
            gradients: by the parameters' names; those that a backward pass left with the parameters if not given.
        """
        if gradients is None:
            gradients = self.own_gradients
        self.prepare_step(gradients.values())
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
        """Let what it keeps lie in memory of its own in the order that the parameters do."""
        for slot in _SLOTS[:2]:
            own = self._slots[slot]
            self._slots[slot] = {n: torch.zeros_like(self.parameters[n]).copy_(each) for n, each in own.items()}
        self.moves += 1

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything to save, by name: `module.*` weights and buffers; `momentum.*`, `variance.*` and `steps.*`."""
        tensors = {f"module.{name}": value for name, value in self.module.state_dict().items()}
        return tensors | {f"{slot}.{name}": each for slot, own in self._slots.items() for name, each in own.items()}

    def check_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Whether `load_state_tensors` could take these over.

        Raises:
            ValueError: naming the tensors that are missing, unknown or of another shape.
        """
        check_shapes(tensors_under("module.", tensors), self.module.state_dict(), must_be_all=True)
        kept = {slot: tensors_under(f"{slot}.", tensors) for slot in _SLOTS}
        for slot, own in kept.items():
            numbers = {name: torch.zeros(()) for name in self.parameters}
            expected = numbers if slot == "steps" else self.parameters
            check_shapes(own, expected, must_be_all=any(kept.values()))

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `state_tensors` gave; the rate is set by the next `begin_epoch`.

        Raises:
            ValueError: see `check_state_tensors`; nothing has changed then.
        """
        self.check_state_tensors(tensors)
        self.module.load_state_dict(tensors_under("module.", tensors))
        self._slots = {slot: tensors_under(f"{slot}.", tensors) for slot in _SLOTS}
        for name, count in self._slots["steps"].items():
            self._slots["steps"][name] = count.to(self.parameters[name].device, copy=True)
        self.align()
