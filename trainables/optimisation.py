"""Optimisers and learning-rate schedules; student and adapter have one of each, apart from the other's."""

import math
from collections.abc import Iterable, Mapping
from typing import Final

import torch
from torch import Tensor, nn

from trainables.naming import unknown_name

SCHEDULES: Final = ("constant", "cosine", "step")
# Epochs 150, 180 and 210 of 240, as CRD, PESF-KD and most of the CIFAR-100 distillation literature.
_STEP_MILESTONES: Final = (0.625, 0.75, 0.875)
_STEP_FACTOR: Final = 0.1


def schedule_factor(schedule: str, epoch: int, epochs: int) -> float:
    """What the initial learning rate is multiplied by throughout an epoch.

    A function of the epoch and of nothing before it, so that a schedule has no state to save.

    Args:
        schedule: `constant`; `cosine`, from 1 at the first epoch towards 0 after the last; `step`, ten times
            less at each of 62.5, 75 and 87.5% of the epochs.
        epoch: counted from 0.
        epochs: of the whole trial.

    Raises:
        ValueError: for an unknown schedule.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    if schedule == "step":
        return _STEP_FACTOR ** sum(epoch >= milestone * epochs for milestone in _STEP_MILESTONES)
    raise ValueError(unknown_name("schedule", schedule, SCHEDULES))


class Trainer:
    """One module's SGD and its schedule.

    Weight decay applies to all parameters, biases and normalisation included, as in the literature's recipes.

    Args:
        module: what it trains.
        learning_rate: of the first epoch.
        momentum: 0 for none; Nesterov off.
        weight_decay: added to the gradient (coupled), on all parameters.
        schedule: see `schedule_factor`.
        epochs: of the whole trial.
    """

    def __init__(
        self,
        module: nn.Module,
        *,
        learning_rate: float,
        momentum: float,
        weight_decay: float,
        schedule: str,
        epochs: int,
    ) -> None:
        self.module = module
        self._learning_rate = learning_rate
        self._schedule = schedule
        self._epochs = epochs
        parameters = self._parameters = list(module.parameters())
        # Measured on small nets: the fused step takes a third to a fifth of the loop over parameters.
        fused = all(each.device.type in ("cpu", "cuda") for each in parameters)
        self.optimizer = torch.optim.SGD(
            parameters, lr=learning_rate, momentum=momentum, weight_decay=weight_decay, fused=fused
        )

    def begin_epoch(self, epoch: int) -> None:
        """Set the rate of epoch `epoch`, counted from 0."""
        rate = self._learning_rate * schedule_factor(self._schedule, epoch, self._epochs)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def forget_gradients(self) -> None:
        """Before a backward pass; a tenth of what the optimiser's own `zero_grad` takes on a small net."""
        for parameter in self._parameters:
            parameter.grad = None

    @property
    def rate(self) -> float:
        """The learning rate in use."""
        return float(self.optimizer.param_groups[0]["lr"])

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything to save, by name: `module.*` weights and buffers, `momentum.*` by parameter."""
        tensors = {f"module.{name}": value for name, value in self.module.state_dict().items()}
        for name, parameter in self.module.named_parameters():
            momentum = self.optimizer.state.get(parameter, {}).get("momentum_buffer")
            if momentum is not None:
                tensors[f"momentum.{name}"] = momentum
        return tensors

    def check_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Whether `load_state_tensors` could take these over.

        Raises:
            ValueError: naming the tensors that are missing, unknown or of another shape.
        """
        momenta = tensors_under("momentum.", tensors)
        _check_shapes(tensors_under("module.", tensors), self.module.state_dict(), must_be_all=True)
        _check_shapes(momenta, dict(self.module.named_parameters()), must_be_all=bool(momenta))

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `state_tensors` gave; the rate is set by the next `begin_epoch`.

        Raises:
            ValueError: see `check_state_tensors`; nothing has changed then.
        """
        self.check_state_tensors(tensors)
        weights = tensors_under("module.", tensors)
        momenta = tensors_under("momentum.", tensors)
        parameters = dict(self.module.named_parameters())
        self.module.load_state_dict(weights)
        self.optimizer.state.clear()
        for name, momentum in momenta.items():
            parameter = parameters[name]
            # In the parameter's own layout of memory: the fused step goes through both in step.
            buffer = torch.empty_like(parameter, requires_grad=False).copy_(momentum)
            self.optimizer.state[parameter]["momentum_buffer"] = buffer


def count_parameters(modules: Iterable[nn.Module]) -> int:
    """How many numbers the modules' parameters hold together."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def tensors_under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those tensors whose names begin with `prefix`, named by the rest."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _check_shapes(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, must_be_all: bool) -> None:
    wrong = sorted(set(given) ^ set(expected)) if must_be_all else sorted(set(given) - set(expected))
    wrong += [name for name in given if name in expected and given[name].shape != expected[name].shape]
    if wrong:
        raise ValueError(f"tensors missing, unknown or of another shape: {', '.join(wrong)}")
