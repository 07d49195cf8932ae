"""Definition of a distillation method: the trained modules and the losses for training."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainables.losses.parts import LossParts, Objective, StepOutputs
from trainables.methods.adapter_term import with_adapter_term
from trainables.spec.methods import MethodSpec

if TYPE_CHECKING:
    from trainables.steps.closed_form import ClosedForm


def weighted_sum(
    outputs: StepOutputs,
    labels: Tensor,
    kd: Tensor,
    *,
    ce_weight: float,
    kd_weight: float,
    adapter_ce_weight: float = 0.0,
) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · kd [+ adapter_ce_weight · CE(z_a, y)].

    The term in brackets is added if there is an adapter.

    Args:
        outputs: step outputs for the batch.
        labels: (B,) int64.
        kd: scalar distillation loss of the method.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the distillation loss.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy.
    """
    ce = cross_entropy(outputs.student_logits, labels)
    total = ce_weight * ce + kd_weight * kd
    if outputs.adapted_logits is None:
        return LossParts(total, ce=ce, kd=kd)
    adapter = cross_entropy(outputs.adapted_logits, labels)
    return LossParts(total + adapter_ce_weight * adapter, ce=ce, kd=kd, adapter=adapter)


def warmup_factor(epoch: int, warmup_epochs: int) -> float:
    """Return a loss factor that grows from 1 / n to 1 in the first n epochs.

    Args:
        epoch: counted from 0.
        warmup_epochs: n; 0 disables the warm-up.
    """
    return min((epoch + 1) / warmup_epochs, 1.0) if warmup_epochs else 1.0


MapShape = tuple[int, ...]  # (C, H, W) for images; (D,) for the hidden states of sentences


def weighted_sum_of_both(
    outputs: StepOutputs, labels: Tensor, kd: Tensor, peer_kd: Tensor, *, ce_weight: float, kd_weight: float
) -> LossParts:
    """Add the peer's weighted loss to `weighted_sum` of the student; one step minimises both.

    Args:
        outputs: step outputs for the batch, including `peer_logits` (B, C).
        labels: (B,) int64.
        kd: scalar distillation loss of the student, without gradient for the peer.
        peer_kd: scalar distillation loss of the peer, without gradient for the student.
        ce_weight: weight of the cross-entropy, the same for student and peer.
        kd_weight: weight of the distillation loss, the same for student and peer.

    Returns:
        Loss parts in which `total` covers both networks and `peer` is the peer's weighted loss.
    """
    assert outputs.peer_logits is not None
    own = weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)
    peer = ce_weight * cross_entropy(outputs.peer_logits, labels) + kd_weight * peer_kd
    return own._replace(total=own.total + peer, peer=peer)


class PartsSetting(NamedTuple):
    """Sizes and labels needed to build a method's own modules.

    Args:
        student_dim: feature size D of the student.
        teacher_dim: feature size D of the teacher.
        labels: (N,) int64, labels of the train split.
        student_maps: (C_i, H_i, W_i) of each student map; empty unless the method needs maps.
        teacher_maps: (C_i, H_i, W_i) of each teacher map; empty unless the method needs maps.
        image: input shape (C, H, W) of both networks; (2, L) for sentences.
        num_classes: number of logits.
    """

    student_dim: int
    teacher_dim: int
    labels: Tensor
    student_maps: tuple[MapShape, ...] = ()
    teacher_maps: tuple[MapShape, ...] = ()
    image: tuple[int, ...] = (0, 0, 0)
    num_classes: int = 0


@dataclass(frozen=True)
class Method:
    """Distillation method: specification, losses and optional trainable modules.

    Args:
        spec: description of the method, usable without torch; see `trainables.spec.methods`.
        losses: `losses(outputs, labels, *, ...)`. Each keyword-only parameter is named like the `TrialConfig` field
            with the value.
        closed_form: builds the formulas for losses and gradients from the keyword-only parameters of `losses`. Autograd
            computes the gradients if this is None or returns None.
        parts: `parts(setting, *, ...)` builds the method's own modules; None if the method has none. Keyword-only
            parameters are named as in `losses`. The parameters are trained together with the student, with the
            student's optimiser settings. Every checkpoint stores the parameters and buffers.
        teacher_method: method for training the teacher, with the teacher network in the role of the student. None if
            the teacher is trained with cross-entropy. Set only by methods that prepare the teacher for the student.
    """

    spec: MethodSpec
    losses: Callable[..., LossParts]
    closed_form: Callable[..., "ClosedForm | None"] | None = None
    parts: Callable[..., nn.Module] | None = None
    teacher_method: "Method | None" = None

    @property
    def name(self) -> str:
        """Name of the method in `METHODS`."""
        return self.spec.name

    @property
    def asks_frozen_teacher(self) -> bool:
        """Whether every batch needs the frozen teacher's outputs."""
        return self.spec.needs_teacher and not self.spec.trains_teacher

    @property
    def loss_fields(self) -> frozenset[str]:
        """Fields of `TrialConfig` read by the losses."""
        return _keywords(self.losses)

    @property
    def parts_fields(self) -> frozenset[str]:
        """Fields of `TrialConfig` read when building the method's own modules."""
        return _keywords(self.parts) if self.parts is not None else frozenset()

    def objective(self, values: Mapping[str, Any]) -> Objective:
        """Return the losses with weights, temperatures and choices filled in.

        Args:
            values: the trial's fields by name; fields the losses do not use are ignored.
        """
        losses = functools.partial(self.losses, **{name: values[name] for name in self.loss_fields})
        if not self.spec.adapter_term:
            return losses
        term = {name: values[name] for name in _keywords(with_adapter_term) - {"losses"}}
        return functools.partial(with_adapter_term, losses=losses, **term)

    def gradients(self, values: Mapping[str, Any]) -> "ClosedForm | None":
        """Return the formulas for losses and gradients with all numbers filled in; None if there are no formulas.

        Args:
            values: the trial's fields by name; fields the losses do not use are ignored.
        """
        if self.closed_form is None:
            return None
        return self.closed_form(**{name: values[name] for name in self.loss_fields})

    def build_parts(self, values: Mapping[str, Any], setting: PartsSetting) -> nn.Module | None:
        """Build the method's own modules; return None if the method has none.

        Args:
            values: the trial's fields by name; fields the modules do not use are ignored.
            setting: sizes and labels to build the modules for.
        """
        if self.parts is None:
            return None
        return self.parts(setting, **{name: values[name] for name in self.parts_fields})


def _keywords(function: Callable[..., Any]) -> frozenset[str]:
    parameters = inspect.signature(function).parameters.values()
    return frozenset(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)
