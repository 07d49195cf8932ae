"""One training step, for one trial or for K trials along a leading axis.

A step passes a mini-batch through the networks, computes all gradients, and updates all trainable modules. Autograd
computes the gradients of any objective. For objectives with a `ClosedForm`, formulas compute the input gradients of the
student's backward pass, in PyTorch or, for small batches, in NumPy; see `choose_step`.

The networks belong to the trials, see `Trials`. Workers training one trial together use autograd: each computes the
whole-batch losses from all-gathered outputs, and the gradients are all-reduced before the update.
"""

from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple, Protocol, TypeVar

import torch
from torch import Tensor

from trainables.losses.parts import LossParts
from trainables.steps.adapter import TeacherAdapter
from trainables.steps.adapter_formulas import AdapterFormulas, AdapterStep
from trainables.steps.closed_form import ClosedForm, Gradients
from trainables.steps.loss_log import LossLog
from trainables.steps.numpy_step import NumpyAdapterStep, NumpyForm, fits_adapter, fits_form
from trainables.steps.sgd import Trainer

BatchT = TypeVar("BatchT")
BatchT_contra = TypeVar("BatchT_contra", contravariant=True)


class BatchLosses(NamedTuple):
    """One mini-batch's losses, with their graph.

    Args:
        parts: scalars for one trial, or tensors (K,).
        size: number of samples in a trial's mini-batch.
    """

    parts: LossParts
    size: int


class FormulaInputs(NamedTuple):
    """Network outputs needed by the formulas.

    Args:
        student_logits: (..., B, C), with their graph.
        teacher_feature: (..., B, D); None without an adapter.
        teacher_logits: (..., B, C).
        labels: (..., B) int64.
    """

    student_logits: Tensor
    teacher_feature: Tensor | None
    teacher_logits: Tensor
    labels: Tensor


class Trials(Protocol[BatchT_contra]):
    """Networks and objectives of one trial, or of K trials along a leading axis."""

    def batch_losses(self, batch: BatchT_contra) -> BatchLosses:
        """Compute a mini-batch's losses with their graph."""

    def formula_inputs(self, batch: BatchT_contra) -> FormulaInputs:
        """Pass a mini-batch through the student and the frozen teacher."""


class Optimiser(Protocol):
    """Update of one or several modules from the gradients of a backward pass."""

    def forget_gradients(self) -> None:
        """Clear all parameters' gradients; called before a backward pass."""

    def step(self) -> None:
        """Update all parameters."""


class TrainingStep(Protocol[BatchT]):
    """One training step for one trial or K trials."""

    def train_batch(self, trials: Trials[BatchT], batch: BatchT, log: LossLog) -> None:
        """Update all trainable modules on one mini-batch.

        Args:
            trials: the trial, or the K trials.
            batch: train mini-batch; for K trials, one for each.
            log: receives the losses, computed before the update.
        """


class AutogradStep:
    """Training step with gradients from autograd, for any objective.

    Args:
        optimisers: optimisers for all trainable modules.
        all_reduce: replaces this worker's gradients by the whole-batch gradients; None if one process trains alone.
    """

    def __init__(self, optimisers: Sequence[Optimiser], *, all_reduce: Callable[[], None] | None = None) -> None:
        self._optimisers = optimisers
        self._all_reduce = all_reduce

    def train_batch(self, trials: Trials[BatchT], batch: BatchT, log: LossLog) -> None:
        """Update all trainable modules on one mini-batch; see `TrainingStep`."""
        losses = trials.batch_losses(batch)
        for optimiser in self._optimisers:
            optimiser.forget_gradients()
        total = losses.parts.total
        (total.sum() if total.dim() else total).backward()
        if self._all_reduce is not None:
            self._all_reduce()
        for optimiser in self._optimisers:
            optimiser.step()
        log.add(losses.parts.detach(), losses.size)


class GradientFormula(Protocol):
    """Gradients of an objective with respect to the logits, as in `ClosedForm`."""

    def __call__(self, student_logits: Tensor, target_logits: Tensor, labels: Tensor) -> Gradients:
        """Compute one mini-batch's gradients."""


class AdapterUpdate(Protocol):
    """An adapter's forward and backward pass, as in `AdapterStep`."""

    def forward(self, feature: Tensor, logits: Tensor) -> Tensor:
        """Compute the adapted logits."""

    def backward(self, gradient: Tensor) -> None:
        """Compute the gradients and take one step, unless the student's optimiser does so."""


class ClosedFormStep:
    """Training step with the objective's gradients from formulas; autograd passes them back through the student.

    Args:
        gradients: the objective's gradients.
        student: the student's optimiser.
        adapter: the adapter's part of the step; None without an adapter.
    """

    def __init__(self, gradients: GradientFormula, student: Optimiser, adapter: AdapterUpdate | None = None) -> None:
        self.gradients = gradients
        self.adapter = adapter
        self._student = student

    def train_batch(self, trials: Trials[BatchT], batch: BatchT, log: LossLog) -> None:
        """Update student and adapter on one mini-batch; see `TrainingStep`."""
        student_logits, feature, target_logits, labels = trials.formula_inputs(batch)
        if self.adapter is not None:
            assert feature is not None
            target_logits = self.adapter.forward(feature, target_logits)
        gradients = self.gradients(student_logits, target_logits, labels)
        # The student's backward pass would evict this code from the processor caches, so the adapter comes first.
        if self.adapter is not None:
            assert gradients.target is not None
            self.adapter.backward(gradients.target)
        log.add_later(gradients.log_p, labels)
        self._student.forget_gradients()
        student_logits.backward(gradients.student)
        self._student.step()


def choose_step(
    closed_form: ClosedForm | None,
    trainers: Mapping[str, Trainer],
    *,
    batch_size: int,
    num_classes: int,
    device: torch.device,
    all_reduce: Callable[[], None] | None = None,
) -> TrainingStep[Any]:
    """Return the fastest implementation of a trial's step, by measurements for different formulas and sizes.

    Args:
        closed_form: formulas for the trial's objective; None if there are none, or if workers train the trial together.
        trainers: the trial's trainers by name.
        batch_size: largest mini-batch size.
        num_classes: C.
        device: device for all networks.
        all_reduce: see `AutogradStep`.
    """
    if closed_form is None:
        return AutogradStep(list(trainers.values()), all_reduce=all_reduce)
    step = formula_step(closed_form, trainers)
    if fits_form(device, batch_size, num_classes):
        step.gradients = NumpyForm(closed_form)
    if (trainer := trainers.get("adapter")) is not None and trainer.is_plain:
        assert isinstance(trainer.module, TeacherAdapter)
        if fits_adapter(trainer.module, device, batch_size):
            step.adapter = NumpyAdapterStep(trainer.module, trainer)
    return step


def formula_step(closed_form: ClosedForm, trainers: Mapping[str, Trainer]) -> ClosedFormStep:
    """Return one trial's step with all formulas in PyTorch.

    Args:
        closed_form: formulas for the trial's objective.
        trainers: the trial's trainers by name.
    """
    step = ClosedFormStep(closed_form, trainers["student"])
    if (trainer := trainers.get("adapter")) is not None:
        assert isinstance(trainer.module, TeacherAdapter)
        step.adapter = AdapterStep(AdapterFormulas(trainer.module), trainer)
    return step
