"""Trainable correction to a frozen teacher's logits."""

from collections.abc import Sequence
from typing import Final

import torch
from torch import Tensor, nn

from trainables.spec.naming import unknown_name

KINDS: Final = ("serial", "parallel", "logit", "feature")
INITS: Final = ("zero", "default", "normal")
_NORMAL_DEVIATION: Final = 0.02


class TeacherAdapter(nn.Module):
    """Adapter that adds a trainable correction to the teacher's logits, computed from the teacher's feature or logits.

    With feature f (B, D), logits z (B, C) and layers W1, W2, W3 (each with a bias), the correction is

    - `serial`: W3 relu(W2 (W1 f)), with W1: D to C, W2: C to width, W3: width to C;
    - `parallel`: W1 f + W3 relu(W2 f), with W1: D to C, W2: D to width, W3: width to C;
    - `logit`: W3 relu(W2 z), with W2: C to width, W3: width to C;
    - `feature`: head(f + W3 relu(W2 f)) - z, with W2: D to width, W3: width to D, and the teacher's frozen head.

    Args:
        feature_dim: D, size of the teacher's penultimate feature.
        num_classes: C.
        width: number of units in the bottleneck.
        kind: form of the correction, see above.
        init: `zero` sets weight and bias of W3 (and of W1 for `parallel`) to zero, so the initial adapted logits equal
            the teacher's bit for bit; `default` is PyTorch's initialisation; `normal` is BERT's: weights from
            N(0, 0.02), biases zero.
        head: the teacher's last layer, required for the kind `feature`. The adapter neither trains nor saves the head.
        shift: constant in nats added to every adapted logit. The shift changes log-sum-exp, and thus the paper's gap,
            but no softmax. The shift therefore serves as a placebo for gap control. Only `forward` applies the shift;
            if the shift is not 0, gradients come from autograd.
        dropout: probability of dropping an output of the bottleneck in train mode. Gradients then come from autograd.

    Raises:
        ValueError: unknown kind or init, or the kind `feature` without a matching head.

    Source:
        Rao et al., "Parameter-Efficient and Student-Friendly Knowledge Distillation" (2022): `serial` follows the
        paper's vision code, and `parallel`, `normal` and dropout the language code. The vision code subtracts the
        correction in training. The code's init is symmetric about zero, so adding the correction gives the same
        distribution of results. `feature` applies the bottleneck of Houlsby et al. (2019) to the penultimate feature.
        `logit` and the zero init are ours.
    """

    head_weight: Tensor

    def __init__(
        self,
        feature_dim: int,
        num_classes: int,
        width: int,
        *,
        kind: str = "serial",
        init: str = "zero",
        head: nn.Linear | None = None,
        shift: float = 0.0,
        dropout: float = 0.0,
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(unknown_name("adapter kind", kind, KINDS))
        if init not in INITS:
            raise ValueError(unknown_name("adapter init", init, INITS))
        self.kind = kind
        self.shift = shift
        self.dropout = dropout
        if kind in ("serial", "parallel"):
            self.w1 = nn.Linear(feature_dim, num_classes)
        bottleneck_inputs = num_classes if kind in ("serial", "logit") else feature_dim
        self.w2 = nn.Linear(bottleneck_inputs, width)
        self.w3 = nn.Linear(width, feature_dim if kind == "feature" else num_classes)
        if kind == "feature":
            # A non-persistent buffer follows .to() but is not in parameters() or state_dict().
            weight = _weight_of(head, feature_dim, num_classes)
            self.register_buffer("head_weight", weight, persistent=False)
        if init == "zero":
            self._zero_the_correction()
        elif init == "normal":
            self._draw_normal()

    def _zero_the_correction(self) -> None:
        last_layers = (self.w3, self.w1) if self.kind == "parallel" else (self.w3,)
        for layer in last_layers:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def _draw_normal(self) -> None:
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)
            else:
                nn.init.normal_(parameter, std=_NORMAL_DEVIATION)

    def forward(self, feature: Tensor, logits: Tensor) -> Tensor:
        """Compute the adapted logits.

        Args:
            feature: (B, D), the frozen teacher's penultimate feature.
            logits: (B, C), the frozen teacher's logits for this feature.

        Returns:
            (B, C).
        """
        adapted = self._adapted(feature, logits)
        return adapted + self.shift if self.shift else adapted

    def _adapted(self, feature: Tensor, logits: Tensor) -> Tensor:
        if self.kind == "serial":
            return logits + self._bottleneck(self.w1(feature))
        if self.kind == "parallel":
            return logits + self.w1(feature) + self._bottleneck(feature)
        if self.kind == "logit":
            return logits + self._bottleneck(logits)
        # Since z = head(f), head(f + b) - z is the head's weight times b: one product, and exactly 0 for b = 0.
        return logits + nn.functional.linear(self._bottleneck(feature), self.head_weight)

    def _bottleneck(self, inputs: Tensor) -> Tensor:
        hidden: Tensor = self.w3(torch.relu(self.w2(inputs)))
        return nn.functional.dropout(hidden, self.dropout, self.training) if self.dropout else hidden


class AdapterAverage(nn.Module):
    """Average of several adapters: the adapted logits are the mean over all members.

    Args:
        members: adapters for one teacher, with different initial weights.
    """

    def __init__(self, members: Sequence[TeacherAdapter]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)

    def forward(self, feature: Tensor, logits: Tensor) -> Tensor:
        """Compute the adapted logits (B, C); see `TeacherAdapter.forward`."""
        return torch.stack([member(feature, logits) for member in self.members]).mean(dim=0)


def _weight_of(head: nn.Linear | None, feature_dim: int, num_classes: int) -> Tensor:
    if head is None:
        raise ValueError("the adapter kind 'feature' applies the teacher's head: pass it as head=teacher.head")
    if head.weight.shape != (num_classes, feature_dim):
        raise ValueError(
            f"the head's weight has shape {tuple(head.weight.shape)}, "
            f"but {num_classes} classes and a feature of {feature_dim} need {(num_classes, feature_dim)}"
        )
    return head.weight.detach()
