"""What a distillation method is: whom it trains, and the losses it trains them by."""

import functools
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainables.losses.parts import LossParts, Objective, StepOutputs
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
    """ce_weight · CE(z_s, y) + kd_weight · kd, and + adapter_ce_weight · CE(z_a, y) where there is an adapter.

    Args:
        outputs: of the batch.
        labels: (B,) int64.
        kd: scalar, the method's distillation loss.
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


MapShape = tuple[int, ...]  # (C, H, W); of the states of sentences (D,)


def weighted_sum_of_both(
    outputs: StepOutputs, labels: Tensor, kd: Tensor, peer_kd: Tensor, *, ce_weight: float, kd_weight: float
) -> LossParts:
    """`weighted_sum` of the student and, as the part `peer`, of its peer: both are minimised in one step.

    Args:
        outputs: of the batch, `peer_logits` (B, C) among them.
        labels: (B,) int64.
        kd: scalar, the student's distillation loss, without the peer's gradient.
        peer_kd: the peer's, without the student's.
        ce_weight: weight of each one's cross-entropy.
        kd_weight: weight of each one's distillation loss.
    """
    assert outputs.peer_logits is not None
    own = weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)
    peer = ce_weight * cross_entropy(outputs.peer_logits, labels) + kd_weight * peer_kd
    return own._replace(total=own.total + peer, peer=peer)


class PartsSetting(NamedTuple):
    """What a method's own parts are built for.

    Args:
        student_dim: D of the student.
        teacher_dim: D of the teacher.
        labels: (N,) int64, of the train split.
        student_maps: (C_i, H_i, W_i) of each of the student's maps; empty unless the method needs them.
        teacher_maps: of each of the teacher's.
        image: (C, H, W) of what both are given; of sentences (2, L).
        num_classes: width of the logits.
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
    """A distillation method.

    Args:
        spec: what is known of it without its code; see `trainables.spec.methods`.
        losses: `losses(outputs, labels, *, ...)`; its keyword-only parameters are named as the fields of
            `TrialConfig` that they take their values from.
        closed_form: takes those of `losses`' keyword-only parameters that it has and gives losses and gradients by
            formula; None, or a None that it returns, where autograd is to find them.
        parts: `parts(setting, *, ...)` builds what the method itself has, its keyword-only parameters as those of
            `losses`: parameters are trained with the student, by its optimiser's settings, and parameters and buffers
            are in every checkpoint. None for a method without.
        teacher_method: what its teacher is trained by, the network itself as that method's student; None where that is
            cross-entropy, as for all but methods that prepare the teacher for its student.
    """

    spec: MethodSpec
    losses: Callable[..., LossParts]
    closed_form: Callable[..., "ClosedForm | None"] | None = None
    parts: Callable[..., nn.Module] | None = None
    teacher_method: "Method | None" = None

    @property
    def name(self) -> str:
        """The method's name in `METHODS`."""
        return self.spec.name

    @property
    def asks_frozen_teacher(self) -> bool:
        """Whether the frozen teacher's outputs are wanted for every batch."""
        return self.spec.needs_teacher and not self.spec.trains_teacher

    @property
    def loss_fields(self) -> frozenset[str]:
        """The fields of `TrialConfig` that the losses depend on."""
        return _keywords(self.losses)

    @property
    def parts_fields(self) -> frozenset[str]:
        """The fields of `TrialConfig` that the method's own parts are built from."""
        return _keywords(self.parts) if self.parts is not None else frozenset()

    @property
    def teacher_fields(self) -> frozenset[str]:
        """The fields of `TrialConfig` that the training of the method's own teacher depends on."""
        own = self.teacher_method
        return (own.loss_fields | own.parts_fields) - {"teacher"} if own is not None else frozenset()

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

    def build_parts(self, values: Mapping[str, Any], setting: PartsSetting) -> nn.Module | None:
        """The method's own parts; None for a method without.

        Args:
            values: as for `objective`.
            setting: what they are for.
        """
        if self.parts is None:
            return None
        return self.parts(setting, **{name: values[name] for name in self.parts_fields})


def _keywords(function: Callable[..., Any]) -> frozenset[str]:
    parameters = inspect.signature(function).parameters.values()
    return frozenset(each.name for each in parameters if each.kind is each.KEYWORD_ONLY)
