"""What a distillation method is: whom it trains, and the losses it trains them by."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor

if TYPE_CHECKING:
    from trainables.closed_form import ClosedForm


class StepOutputs(NamedTuple):
    """What the networks say of one batch; None for a network that the method does not have.

    Args:
        student_feature: (B, D of the student), its penultimate feature.
        student_logits: (B, C).
        teacher_feature: (B, D of the teacher), without gradient.
        teacher_logits: (B, C), the frozen teacher's, without gradient.
        adapted_logits: (B, C), with the adapter's gradient.
    """

    student_feature: Tensor
    student_logits: Tensor
    teacher_feature: Tensor | None = None
    teacher_logits: Tensor | None = None
    adapted_logits: Tensor | None = None


class LossParts(NamedTuple):
    """The loss of one batch in named parts, scalars; None for a part that the method does not have.

    Args:
        total: what is minimised, the weighted sum of the parts.
        ce: the student's cross-entropy, before its weight.
        kd: the distillation loss, T² included, before its weight.
        adapter: the adapted teacher's cross-entropy, before its weight.
    """

    total: Tensor
    ce: Tensor | None = None
    kd: Tensor | None = None
    adapter: Tensor | None = None

    def detach(self) -> "LossParts":
        """The same values without their graph."""
        rest = (None if part is None else part.detach() for part in self[1:])
        return LossParts(self.total.detach(), *rest)


# (outputs, labels (B,) int64) -> the batch's losses
Objective = Callable[[StepOutputs, Tensor], LossParts]


@dataclass(frozen=True)
class Method:
    """A distillation method.

    Args:
        name: its name in `METHODS`.
        losses: `losses(outputs, labels, *, ...)`; its keyword-only parameters are named as the fields of
            `TrialConfig` that they take their values from.
        needs_teacher: the student is taught by a teacher.
        has_adapter: an adapter corrects the frozen teacher's logits and is trained with the student.
        closed_form: takes those of `losses`' keyword-only parameters that it has and gives losses and gradients by
            formula; None where autograd is to find them.
    """

    name: str
    losses: Callable[..., LossParts]
    needs_teacher: bool
    has_adapter: bool
    closed_form: Callable[..., "ClosedForm"] | None = None

    @property
    def loss_fields(self) -> frozenset[str]:
        """The fields of `TrialConfig` that the losses depend on."""
        parameters = inspect.signature(self.losses).parameters.values()
        return frozenset(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)

    def objective(self, values: Mapping[str, Any]) -> Objective:
        """The losses with their weights, temperatures and choices fixed.

        Args:
            values: the trial's fields by name; those that the losses do not depend on are ignored.
        """
        return functools.partial(self.losses, **{name: values[name] for name in self.loss_fields})

    def gradients(self, values: Mapping[str, Any]) -> "ClosedForm | None":
        """The objective's losses and gradients by formula, with its numbers fixed; None if it has no such form.

        Args:
            values: as for `objective`.
        """
        if self.closed_form is None:
            return None
        return self.closed_form(**{name: values[name] for name in self.loss_fields})
