"""Losses of a user method, with a check of each return value."""

from collections.abc import Callable
from functools import wraps
from typing import Any

import torch
from torch import Tensor

from trainables.losses.parts import LossParts, StepOutputs
from trainables.user_code.errors import UserCodeError


def checked_losses(losses: Callable[..., LossParts], shown: str) -> Callable[..., LossParts]:
    """Return the user's losses with a check of the returned parts. Signature and values are unchanged.

    The check reads types and shapes alone, so it never waits for a device.

    Args:
        losses: the method's losses.
        shown: method name in errors.
    """

    @wraps(losses)
    def checked(outputs: StepOutputs, labels: Tensor, **settings: Any) -> LossParts:
        parts = losses(outputs, labels, **settings)
        if (reason := _problem(parts)) is not None:
            raise UserCodeError(f"the losses of {shown} {reason}")
        return parts

    return checked


def _problem(parts: Any) -> str | None:
    if not isinstance(parts, LossParts):
        what = type(parts).__name__
        return f"return a {what}, not LossParts: return weighted_sum(...), or LossParts(total, ce=ce, kd=kd)"
    for name, part in parts._asdict().items():
        if part is None and name != "total":
            continue
        if not isinstance(part, Tensor):
            return f"return {name} as a {type(part).__name__}, not a tensor: return a scalar tensor"
        if part.ndim:
            return f"return {name} of shape {tuple(part.shape)}, not a scalar: take the mean over the samples"
        if not part.dtype.is_floating_point:
            return f"return {name} of type {part.dtype}: return a floating-point scalar"
    if torch.is_grad_enabled() and not parts.total.requires_grad:
        return (
            "return a total without a gradient: compute it from outputs.student_logits, without detach() or no_grad()"
        )
    return None
