"""SGD and learning-rate schedules; each trained module has a separate optimiser and schedule.

`Trainer` implements SGD. AdamW is in `trainables.steps.adamw`.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor, nn
from torch.optim.sgd import sgd

from trainables.spec.naming import unknown_name
from trainables.spec.recipes import STEP_MILESTONES

SCHEDULES: Final = ("constant", "cosine", "step", "linear", "one_cycle", "released")
_STEP_FACTOR: Final = 0.1
# Defaults of torch.optim.lr_scheduler.OneCycleLR.
_RISING: Final = 0.3  # pct_start
_FIRST_DIVISOR: Final = 25.0  # div_factor
_LAST_DIVISOR: Final = 1e4  # final_div_factor
# One number for the whole parameter, or a tensor with one number per element.
Number = float | Tensor


def schedule_factor(schedule: str, epoch: int, epochs: int) -> float:
    """Compute the factor on the initial learning rate for an epoch.

    The factor depends only on the epoch, so a schedule has no state to save. For `linear`, the result is the factor at
    the epoch's first step without warm-up; `linear_factor` then replaces it at every step.

    Args:
        schedule: `constant`; `cosine`, from 1 in the first epoch towards 0 after the last; `step`, divided by ten at
            62.5, 75 and 87.5% of the epochs; `linear`, from 1 towards 0, see `linear_factor`; `released`, 1 until the
            first milestone of `step`. From there on `Trainer` takes the student's rate instead; `one_cycle`, up to 1
            and down to almost 0, see `one_cycle_factor`.
        epoch: counted from 0.
        epochs: number of epochs in the whole trial.

    Raises:
        ValueError: unknown schedule.
    """
    if schedule in ("constant", "released"):
        return 1.0
    if schedule == "linear":
        return 1 - epoch / epochs
    if schedule == "cosine":
        return 0.5 * (1 + math.cos(math.pi * epoch / epochs))
    if schedule == "step":
        return _STEP_FACTOR ** sum(epoch >= milestone * epochs for milestone in STEP_MILESTONES)
    if schedule == "one_cycle":
        return one_cycle_factor(epoch, epochs)
    raise ValueError(unknown_name("schedule", schedule, SCHEDULES))


def one_cycle_factor(epoch: int, epochs: int) -> float:
    """Compute the one-cycle schedule's factor on the largest learning rate for an epoch.

    The factor rises from 1/25 to 1 in the first 30% of the epochs, then falls to 1/250,000 in the last epoch, in both
    parts along half a cosine. The config's learning rate is the largest one. The rate changes between epochs and not
    within an epoch, so NumPy steps and packed steps can use the schedule too.

    Args:
        epoch: counted from 0.
        epochs: number of epochs in the whole trial.

    Source:
        Smith and Topin, "Super-convergence: very fast training of neural networks using large learning rates" (2018).
        Equal to `torch.optim.lr_scheduler.OneCycleLR` with default arguments, one call of `step` per epoch and
        `total_steps=epochs`. Deviation: the momentum is constant. PyTorch's default moves it against the rate, between
        0.95 and 0.85.
    """
    peak, last = _RISING * epochs - 1, epochs - 1
    if epoch <= peak:
        return _between(1 / _FIRST_DIVISOR, 1.0, epoch / peak)
    return _between(1.0, 1 / (_FIRST_DIVISOR * _LAST_DIVISOR), (epoch - peak) / (last - peak))


def _between(start: float, end: float, share: float) -> float:
    return end + (start - end) / 2 * (1 + math.cos(math.pi * share))


def linear_factor(step: int, steps: int, warmup: float) -> float:
    """Compute the factor on the initial learning rate for one step of linear warm-up and linear decay.

    The factor rises from near 0 to 1 in the warm-up, then falls towards 0.

    Args:
        step: counted from 0.
        steps: number of steps in the whole trial.
        warmup: share of steps with a rising learning rate.

    Source:
        Devlin et al., "BERT" (2019): linear warm-up and linear decay.
    """
    rising = warmup * steps
    return (step + 1) / rising if step + 1 <= rising else (steps - step) / (steps - math.floor(rising))


@torch.no_grad()
def sgd_step(
    parameters: Sequence[Tensor],
    gradients: Sequence[Tensor],
    momenta: Sequence[Tensor | None],
    *,
    rate: Number,
    momentum: Number,
    weight_decay: Number,
    fused: bool,
) -> None:
    """Take one step of SGD with momentum and coupled weight decay, in place.

    For each parameter w with gradient g and momentum m,

        m <- momentum · m + (g + weight_decay · w)
        w <- w - rate · m

    Equivalent to `torch.optim.SGD.step` without dampening and Nesterov momentum. PyTorch's layers above the functional
    SGD take two thirds of a small network's step.

    Args:
        parameters: tensors to update.
        gradients: their gradients, which may be overwritten.
        momenta: their momenta, zeros before the first step; None without momentum.
        rate: learning rate; a number, or a tensor with one number per element for each parameter.
        momentum: as `rate`.
        weight_decay: as `rate`.
        fused: use PyTorch's fused kernel, which rounds differently in the last bit and takes numbers only.
    """
    if fused:
        existing: list[Any] = list(momenta)
        sgd(
            list(parameters),
            list(gradients),
            existing,
            fused=True,
            lr=rate,
            momentum=momentum,  # type: ignore[arg-type]
            weight_decay=weight_decay,  # type: ignore[arg-type]
            dampening=0.0,
            nesterov=False,
            maximize=False,
        )
        return
    for parameter, gradient, running in zip(parameters, gradients, momenta, strict=True):
        _add_product(gradient, parameter, weight_decay)
        step = gradient if running is None else running.mul_(momentum).add_(gradient)
        _add_product(parameter, step, -rate)


def _add_product(target: Tensor, values: Tensor, factor: Number) -> None:
    if isinstance(factor, Tensor):
        target.addcmul_(values, factor)
    elif factor:
        target.add_(values, alpha=factor)


class Trainer:
    """SGD and learning-rate schedule for one module.

    Weight decay applies to all parameters, including biases and normalisation, as in the literature's recipes.

    Args:
        module: module to train.
        learning_rate: initial learning rate, multiplied by the schedule's factor.
        momentum: 0 for none; without Nesterov momentum.
        weight_decay: coupled weight decay (added to the gradient), on all parameters.
        schedule: see `schedule_factor`.
        epochs: number of epochs in the whole trial.
        steps: number of steps in an epoch. Only the `linear` schedule needs this, because it changes the rate at every
            step.
        warmup: share of all steps before the `linear` schedule's peak.
        clip_norm: upper limit for the joint norm of all the module's gradients; 0 disables clipping.
        late_rate: the student's initial learning rate. The schedule `released` requires it: from 62.5% of the epochs
            on, the rate is `late_rate` with the factor of `step`. PESF-KD's vision code does so, because it sets every
            parameter group's rate at the student's milestones.
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
        late_rate: float = 0.0,
    ) -> None:
        assert late_rate or schedule != "released", "the schedule 'released' needs the student's rate"
        self.module = module
        self.momentum = momentum
        self.weight_decay = weight_decay
        self.rate = learning_rate
        self._learning_rate = learning_rate
        self._late_rate = late_rate
        self._schedule = schedule
        self._epochs = epochs
        self._steps = steps
        self._warmup = warmup
        self._clip_norm = clip_norm
        self._step: int | None = None  # step within the whole trial, for a schedule by steps
        self.parameters: Final = dict(module.named_parameters())
        self.moves = 0  # how often parameters or momenta were moved in memory
        self._momenta: dict[str, Tensor] = {}
        # Measured on small networks: the fused step takes a fifth to a third of a parameter loop's time.
        self._fused = all(each.device.type in ("cpu", "cuda") for each in self.parameters.values())

    def begin_epoch(self, epoch: int) -> None:
        """Set the learning rate for epoch `epoch`, counted from 0."""
        self.rate = self._learning_rate * schedule_factor(self._schedule, epoch, self._epochs)
        if self._schedule == "released" and (decay := schedule_factor("step", epoch, self._epochs)) < 1:
            self.rate = self._late_rate * decay
        self._step = epoch * self._steps if self._schedule == "linear" and self._steps else None

    @property
    def is_plain(self) -> bool:
        """Whether the step is plain SGD at one rate per epoch. Other code may then implement the step."""
        return not (self._clip_norm or self._schedule == "linear")

    def prepare_step(self, gradients: Mapping[str, Tensor]) -> None:
        """Prepare a step: set the learning rate if it changes at every step, and clip the gradients in place.

        Args:
            gradients: gradients by parameter name. Workers must have summed them: the limit applies to the whole-batch
                gradient, and every worker clips alike.
        """
        if self._step is not None:
            total = self._steps * self._epochs
            self.rate = self._learning_rate * linear_factor(self._step, total, self._warmup)
            self._step += 1
        if self._clip_norm and gradients:
            moving = [self.parameters[name] for name in gradients]
            for parameter, gradient in zip(moving, gradients.values(), strict=True):
                parameter.grad = gradient
            # A non-finite norm raises no error, because the check would wait for the device. This norm ruins the
            # weights, and the epoch's losses are then not finite either.
            nn.utils.clip_grad_norm_(moving, self._clip_norm)

    def forget_gradients(self) -> None:
        """Clear the parameters' gradients; called before a backward pass."""
        for parameter in self.parameters.values():
            parameter.grad = None

    @property
    def own_gradients(self) -> dict[str, Tensor]:
        """Gradients from the last backward pass, by parameter name."""
        return {name: each.grad for name, each in self.parameters.items() if each.grad is not None}

    @torch.no_grad()
    def step(self, gradients: Mapping[str, Tensor] | None = None) -> None:
        """Take one step with `sgd_step`; parameters without a gradient keep their values.

        Args:
            gradients: gradients by parameter name; by default each parameter's `.grad` after a backward pass.
        """
        if gradients is None:
            gradients = self.own_gradients
        if not gradients:  # a frozen adapter
            return
        self.prepare_step(gradients)
        if self.momentum and not self._momenta:
            # PyTorch initialises momenta with the first gradient; starting from zero gives the same result.
            self._momenta = {name: torch.zeros_like(each) for name, each in self.parameters.items()}
        sgd_step(
            [self.parameters[name] for name in gradients],
            list(gradients.values()),
            [self._momenta.get(name) for name in gradients],  # all None without momentum
            rate=self.rate,
            momentum=self.momentum,
            weight_decay=self.weight_decay,
            fused=self._fused,
        )

    @torch.no_grad()
    def move(self, parameters: Mapping[str, Tensor], momenta: Mapping[str, Tensor]) -> None:
        """Move parameters and momenta, with their current values, into the given memory.

        Args:
            parameters: target tensors by name, with the parameters' shapes.
            momenta: target tensors by name, with the same shapes. A trainer without momentum does not keep them.
                Momenta are zero before the first step.
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
        """Move each parameter into separate memory; `align` does the same for the momenta."""
        for parameter in self.parameters.values():
            parameter.data = torch.empty_like(parameter, memory_format=torch.contiguous_format).copy_(parameter)
            parameter.grad = None
        self.moves += 1

    @torch.no_grad()
    def align(self) -> None:
        """Copy the momenta into new memory with the memory layout of the parameters.

        The fused step iterates over both in memory order.
        """
        self._momenta = {n: torch.zeros_like(self.parameters[n]).copy_(each) for n, each in self._momenta.items()}
        self.moves += 1

    def state_tensors(self) -> dict[str, Tensor]:
        """Return all tensors to save, by name.

        The names are `module.*` for weights and buffers, and `momentum.*` for each parameter's momentum.
        """
        tensors = {f"module.{name}": value for name, value in self.module.state_dict().items()}
        return tensors | {f"momentum.{name}": momentum for name, momentum in self._momenta.items()}

    def check_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Check that `load_state_tensors` can load these tensors.

        Raises:
            ValueError: tensors are missing, unknown or have another shape; the message lists the names.
        """
        momenta = tensors_under("momentum.", tensors)
        check_shapes(tensors_under("module.", tensors), self.module.state_dict(), must_be_all=True)
        check_shapes(momenta, self.parameters, must_be_all=bool(momenta))

    def load_state_tensors(self, tensors: dict[str, Tensor]) -> None:
        """Load tensors saved by `state_tensors`; the next `begin_epoch` sets the learning rate.

        Raises:
            ValueError: see `check_state_tensors`; nothing is changed in this case.
        """
        self.check_state_tensors(tensors)
        weights = tensors_under("module.", tensors)
        momenta = tensors_under("momentum.", tensors)
        self.module.load_state_dict(weights)
        self._momenta = momenta
        self.align()


def count_parameters(modules: Iterable[nn.Module]) -> int:
    """Count the elements in all parameters of the modules."""
    return sum(parameter.numel() for module in modules for parameter in module.parameters())


def tensors_under(prefix: str, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors with the prefix `prefix` in the name, named without the prefix."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def check_shapes(given: Mapping[str, Tensor], expected: Mapping[str, Tensor], *, must_be_all: bool) -> None:
    """Check that the given tensors can replace the expected ones.

    Args:
        given: tensors by name.
        expected: tensors by name.
        must_be_all: whether every expected tensor must be given.

    Raises:
        ValueError: tensors are missing, unknown or have another shape; the message lists the names.
    """
    wrong = sorted(set(given) ^ set(expected)) if must_be_all else sorted(set(given) - set(expected))
    wrong += [name for name in given if name in expected and given[name].shape != expected[name].shape]
    if wrong:
        raise ValueError(f"tensors missing, unknown or of another shape: {', '.join(wrong)}")
