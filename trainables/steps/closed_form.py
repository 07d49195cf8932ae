"""Gradients of the objective by explicit formulas, for networks so small that autograd's overhead is a third of a step.

Notation for one batch: s are the student logits, and a the target logits (from the adapted or the frozen teacher), both
(..., B, C). y are the labels (..., B), T is the temperature, and p(z) = softmax(z). K is the mean of
KL(p(a / T) || p(s / T)) over the batch. The objective is

    ce_weight · CE(s, y) + kd_weight · T² K + adapter_ce_weight · CE(a, y)

With d = log p(a / T) - log p(s / T), the gradients of each row are

    in s:  ce_weight (p(s) - onehot(y)) / B + kd_weight T (p(s / T) - p(a / T)) / B
    in a:  adapter_ce_weight (p(a) - onehot(y)) / B + kd_weight T p(a / T) (d - Σ p(a / T) d) / B

Leading dimensions (...) hold several objectives, each with separate weights and temperature. The tests compare these
formulas with the methods' losses.

Between the convolutions of a step, each call costs 5 to 10 µs however small the computation, so this module makes few
calls. All terms except the last one are linear in the four distributions and the labels, and one matrix product
computes them all. Classes come before samples in memory, (C, B), because PyTorch's softmax then takes a third of the
time.
"""

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from trainables.losses.parts import LossParts

# One number for all objectives, or a tensor (...) with one number per objective.
Number = float | Tensor


class Gradients(NamedTuple):
    """A batch's gradients, and the log-probabilities for computing the losses later.

    Args:
        student: (..., B, C), gradient with respect to the student logits.
        target: (..., B, C), gradient with respect to the target logits; None without an adapter.
        log_p: (..., 4, C, B), logarithms of p(s), p(a), p(s / T) and p(a / T).
    """

    student: Tensor
    target: Tensor | None
    log_p: Tensor


class ClosedForm:
    """Objective of `kd` and `pesf_kd` with given weights and temperature.

    Args:
        temperature: T, softens both sides of the divergence.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy; None without an adapter.
        detach_adapter_target: stop the divergence's gradient before the adapter.

    Attributes:
        has_adapter: whether an adapter is trained.
        linear: coefficients, times B, of p(s), p(a), p(s / T), p(a / T) and the labels. Row 0 is for the gradient in s,
            row 1 for the gradient in a.
        divergence_weight: coefficient, times B, of the last term of the gradient in a; None if this term is absent.
    """

    def __init__(
        self,
        *,
        temperature: Number,
        ce_weight: Number,
        kd_weight: Number,
        adapter_ce_weight: Number | None = None,
        detach_adapter_target: bool = False,
    ) -> None:
        self.has_adapter = adapter_ce_weight is not None
        adapter: Number = 0.0 if adapter_ce_weight is None else adapter_ce_weight
        self.temperature = temperature
        self._numbers = temperature, ce_weight, kd_weight, adapter
        softened = kd_weight * temperature
        self.linear: list[list[Number]] = [
            [ce_weight, 0.0, softened, -softened, -ce_weight],
            [0.0, adapter, 0.0, 0.0, -adapter],
        ]
        self.divergence_weight: Number | None = softened if self.has_adapter and not detach_adapter_target else None
        self._shape: tuple[object, ...] = ()

    @torch.no_grad()
    def __call__(self, student_logits: Tensor, target_logits: Tensor, labels: Tensor) -> Gradients:
        """Compute the gradients of one batch, or of several batches along leading dimensions.

        Args:
            student_logits: (..., B, C) float.
            target_logits: (..., B, C), the adapted or frozen teacher's logits.
            labels: (..., B) int64.
        """
        if self._shape != (student_logits.shape, student_logits.dtype):
            self._prepare(student_logits)
        logits = torch.stack([student_logits.mT, target_logits.mT], dim=-3)
        log_p = torch.log_softmax(torch.cat([logits, logits * self._inverse_temperature], dim=-3), dim=-2)
        terms = self._terms
        torch.exp(log_p, out=self._p)
        if labels.dim() == 1:
            torch.index_select(self._unit, 1, labels, out=self._truth)
        else:
            self._truth.copy_(self._unit[labels].mT)
        gradients = (self._weights @ terms.flatten(-2)).view(self._paired)
        student, target = gradients.unbind(-3)
        if self.divergence_weight is not None:
            self._add_divergence_gradient(target, log_p)
        return Gradients(student.mT, target.mT if self.has_adapter else None, log_p)

    def _add_divergence_gradient(self, target: Tensor, log_p: Tensor) -> None:
        p = self._soft_target
        difference = log_p.select(-3, 3) - log_p.select(-3, 2)
        difference -= (p * difference).sum(dim=-2, keepdim=True)
        target.add_(difference.mul_(p).mul_(self._divergence_weight))

    def _prepare(self, logits: Tensor) -> None:
        """Allocate buffers and matrices for batches of this shape."""
        *leading, batch, classes = logits.shape
        self._shape = logits.shape, logits.dtype
        self._paired = (*leading, 2, classes, batch)
        self._terms = logits.new_empty((*leading, 5, classes, batch))
        self._p, self._truth = self._terms[..., :4, :, :], self._terms[..., 4, :, :]
        self._soft_target = self._terms[..., 3, :, :]
        self._unit = torch.eye(classes, dtype=logits.dtype, device=logits.device)
        self._inverse_temperature = _matrix([[1 / self._numbers[0]]], leading, logits).unsqueeze(-1)
        self._weights = _matrix(self.linear, leading, logits) / batch
        if self.divergence_weight is not None:
            self._divergence_weight = _matrix([[self.divergence_weight]], leading, logits) / batch

    @torch.no_grad()
    def parts(self, log_p: Tensor, labels: Tensor) -> LossParts:
        """Compute batch losses from the saved log-probabilities.

        Args:
            log_p: (..., 4, C, B), as in `Gradients`; further leading dimensions hold further batches.
            labels: (..., B) int64.

        Returns:
            Loss parts, each of shape (...).
        """
        temperature, ce_weight, kd_weight, adapter_ce_weight = self._numbers
        student, teacher, soft_student, soft_teacher = log_p.unbind(-3)
        index = labels.unsqueeze(-2)
        ce = -student.gather(-2, index).mean(dim=(-2, -1))
        divergence = (soft_teacher.exp() * (soft_teacher - soft_student)).sum(dim=-2).mean(dim=-1)
        kd = divergence * temperature**2
        total = ce * ce_weight + kd * kd_weight
        if not self.has_adapter:
            return LossParts(total, ce=ce, kd=kd)
        adapter = -teacher.gather(-2, index).mean(dim=(-2, -1))
        return LossParts(total + adapter * adapter_ce_weight, ce=ce, kd=kd, adapter=adapter)


def _matrix(rows: Sequence[Sequence[Number]], leading: Sequence[int], like: Tensor) -> Tensor:
    """Combine numbers and tensors (...) into one tensor (..., rows, columns)."""
    numbers = [
        [torch.as_tensor(each, dtype=like.dtype, device=like.device).expand(leading) for each in r] for r in rows
    ]
    return torch.stack([torch.stack(row, dim=-1) for row in numbers], dim=-2)
