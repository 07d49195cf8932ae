"""Optimisers and learning-rate schedules; student and adapter have one of each, apart from the other's.

`Trainer` is SGD; AdamW is `trainables.steps.adamw`'s.
"""

import math
from collections.abc import Collection, Iterable, Mapping
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from trainables.spec.naming import unknown_name
from trainables.spec.recipes import STEP_MILESTONES

SCHEDULES: Final = ("constant", "cosine", "step", "linear")
_STEP_FACTOR: Final = 0.1
_TINY: Final = 1e-6


def schedule_factor(schedule: str, epoch: int, epochs: int) -> float:
    """What the initial learning rate is multiplied by throughout an epoch, or, where it is linear, at its first step.

    A function of the epoch and of nothing before it, so that a schedule has no state to save.

    Args:
        schedule: `constant`; `cosine`, from 1 at the first epoch towards 0 after the last; `step`, ten times
            less at each of 62.5, 75 and 87.5% of the epochs; `linear`, from 1 towards 0, see `linear_factor`.
        epoch: counted from 0.
        epochs: of the whole trial.

    Raises:
        ValueError: for an unknown schedule.
    """
    if schedule == "constant":
        return 1.0
    if schedule == "linear":
        return 1 - epoch / epochs
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    if schedule == "step":
        return _STEP_FACTOR ** sum(epoch >= milestone * epochs for milestone in STEP_MILESTONES)
    raise ValueError(unknown_name("schedule", schedule, SCHEDULES))


def linear_factor(step: int, steps: int, warmup: float) -> float:
    """What the initial learning rate is multiplied by at one step: up from 0 in the warmup, then down to 0.

    Args:
        step: counted from 0.
        steps: of the whole trial.
        warmup: share of the steps in which the rate rises.

    Source:
        Devlin et al., "BERT" (2019): linear warmup and linear decay.
    """
    rising = warmup * steps
    return (step + 1) / rising if step + 1 <= rising else (steps - step) / (steps - math.floor(rising))


@torch.no_grad()
def clip(gradients: Collection[Tensor], largest: float) -> None:
    """Scale gradients together, in place, so that the norm of all their numbers is at most `largest`."""
    gradients = list(gradients)
    norm = torch.stack(torch._foreach_norm(gradients)).norm()
    # Without a question to the device; a norm that is not finite spoils the weights, which the epoch's losses tell.
    torch._foreach_mul_(gradients, (largest / (norm + _TINY)).clamp(max=1.0))


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
        steps: in an epoch; needed by a linear schedule alone, which falls from step to step.
        warmup: share of all steps in which a linear schedule rises before it falls.
        clip_norm: the gradients' norm, of all of the module's together, is cut to this before a step; 0 leaves it.
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
        steps: int = 0,
        warmup: float = 0.0,
        clip_norm: float = 0.0,
    ) -> None:
        self.module = module
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.rate = learning_rate
        self._learning_rate = learning_rate
        self._schedule = schedule
        self._epochs = epochs
        self._steps = steps
        self._warmup = warmup
        self._clip_norm = clip_norm
        self._step: int | None = None  # of the whole trial, where the schedule goes by steps
        self.parameters: Final = dict(module.named_parameters())
        self.moves = 0  # how often parameters or momenta have gone to live in other memory
        self._momenta: dict[str, Tensor] = {}
        # Measured on small nets: the fused step takes a third to a fifth of the loop over parameters.
        self._fused = all(each.device.type in ("cpu", "cuda") for each in self.parameters.values())

    def begin_epoch(self, epoch: int) -> None:
        """Set the rate of epoch `epoch`, counted from 0."""
        self.rate = self._learning_rate * schedule_factor(self._schedule, epoch, self._epochs)
        self._step = epoch * self._steps if self._schedule == "linear" and self._steps else None

    @property
    def is_plain(self) -> bool:
        """Whether its step is SGD's alone, at one rate throughout an epoch, so that others may make it for it."""
        return not (self._clip_norm or self._schedule == "linear")

    def prepare_step(self, gradients: Collection[Tensor]) -> None:
        """What comes before a step: the step's rate, and gradients that are not too long."""
        if self._step is not None:
            total = self._steps * self._epochs
            self.rate = self._learning_rate * linear_factor(self._step, total, self._warmup)
            self._step += 1
        if self._clip_norm and gradients:
            clip(gradients, self._clip_norm)

    def forget_gradients(self) -> None:
        """Before a backward pass."""
        for parameter in self.parameters.values():
            parameter.grad = None

    @property
    def own_gradients(self) -> dict[str, Tensor]:
        """What a backward pass left with the parameters, by their names."""
        return {name: each.grad for name, each in self.parameters.items() if each.grad is not None}

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor] | None = None) -> None:
        """One step down the gradients; a parameter without one stays as it is.

        The same as `torch.optim.SGD.step`, by the function that it calls in the end: the way there takes two thirds
        of a small net's step.

        Args:
            gradients: by the parameters' names; those that a backward pass left with the parameters if not given.
        """
        if gradients is None:
            gradients = self.own_gradients
        self.prepare_step(gradients.values())
        if self.momentum and not self._momenta:
            # PyTorch begins with the first gradient, which is what a momentum of zero turns into.
            self._momenta = {name: torch.zeros_like(each) for name, each in self.parameters.items()}
        momenta: list[Any] = [self._momenta.get(name) for name in gradients]  # None for all without momentum
        sgd(
            [self.parameters[name] for name in gradients],
            list(gradients.values()),
            momenta,
            fused=self._fused,
            lr=self.rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )

    @torch.no_grad()
    def move(self, parameters: Mapping[str, Tensor], momenta: Mapping[str, Tensor]) -> None:
        """Let parameters and momenta, with the values that they have, live in other memory from now on.

        Args:
            parameters: by name, of the parameters' shapes.
            momenta: the same; not kept by a trainer without momentum, and zero where it has made no step.
        """
        for name, parameter in self.parameters.items():
            parameters[name].copy_(parameter)
            parameter.data = parameters[name]
            parameter.grad = None
            old = self._momenta.get(name)
            momenta[name].copy_(old if old is not None else torch.zeros_like(momenta[name]))
        self._momenta = dict(momenta) if self.momentum else {}
        self.moves += 1

    @torch.no_grad()
    def leave(self) -> None:
        """Let the parameters live in memory of their own, each by itself, the momenta too once `align` is called."""
        for parameter in self.parameters.values():
            parameter.data = torch.empty_like(parameter, memory_format=torch.contiguous_format).copy_(parameter)
            parameter.grad = None
        self.moves += 1

    @torch.no_grad()
    def align(self) -> None:
        """Let the momenta lie in memory of their own in the order that the parameters do.

        The fused step goes through both in step.
        """
        self._momenta = {n: torch.zeros_like(self.parameters[n]).copy_(each) for n, each in self._momenta.items()}
        self.moves += 1

    def state_tensors(self) -> dict[str, Tensor]:
        """Everything to save, by name: `module.*` weights and buffers, `momentum.*` by parameter."""
        tensors = {f"module.{name}": value for name, value in self.module.state_dict().items()}
        return tensors | {f"momentum.{name}": momentum for name, momentum in self._momenta.items()}

    def check_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Whether `load_state_tensors` could take these over.

        Raises:
            ValueError: naming the tensors that are missing, unknown or of another shape.
        """
        momenta = tensors_under("momentum.", tensors)
        check_shapes(tensors_under("module.", tensors), self.module.state_dict(), must_be_all=True)
        check_shapes(momenta, self.parameters, must_be_all=bool(momenta))

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Take over what `state_tensors` gave; the rate is set by the next `begin_epoch`.

        Raises:
            ValueError: see `check_state_tensors`; nothing has changed then.
        """
        self.check_state_tensors(tensors)
        weights = tensors_under("module.", tensors)
        momenta = tensors_under("momentum.", tensors)
        self.module.load_state_dict(weights)
        self._momenta = momenta
        self.align()


def count_parameters(modules: Iterable[nn.Module]) -> int:
    """How many numbers the modules' parameters hold together."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def tensors_under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Those tensors whose names begin with `prefix`, named by the rest."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def check_shapes(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, must_be_all: bool) -> None:
    """Whether tensors could take the place of others.

    Raises:
        ValueError: naming those that are missing, unknown or of another shape.
    """
    wrong = sorted(set(given) ^ set(expected)) if must_be_all else sorted(set(given) - set(expected))
    wrong += [name for name in given if name in expected and given[name].shape != expected[name].shape]
    if wrong:
        raise ValueError(f"tensors missing, unknown or of another shape: {', '.join(wrong)}")
