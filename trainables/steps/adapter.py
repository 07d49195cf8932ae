"""The trainable correction of a frozen teacher's logits."""

from typing import Final

import torch
from torch import Tensor, nn

from trainables.spec.naming import unknown_name

KINDS: Final = ("serial", "parallel", "logit", "feature")
INITS: Final = ("zero", "default")


class TeacherAdapter(nn.Module):
    """Adapted logits: the teacher's logits plus a correction computed from its feature or its logits.

    With feature f (B, D), logits z (B, C), layers W1, W2 and W3 (each with a bias), the correction is

    - `serial`: W3 relu(W2 (W1 f)), with W1: D to C, W2: C to width, W3: width to C;
    - `parallel`: W1 f + W3 relu(W2 f), with W1: D to C, W2: D to width, W3: width to C;
    - `logit`: W3 relu(W2 z), with W2: C to width, W3: width to C;
    - `feature`: head(f + W3 relu(W2 f)) - z, with W2: D to width, W3: width to D, and the teacher's frozen
      head.

    Args:
        feature_dim: D, size of the teacher's penultimate feature.
        num_classes: C.
        width: units in the bottleneck.
        kind: where the correction comes from.
        init: `zero` zeroes the weight and bias of W3 (and of W1 in `parallel`), so that the first adapted
            logits are the teacher's to the bit; `default` is PyTorch's.
        head: the teacher's last layer, which the kind `feature` needs; it is never trained nor saved here.
        shift: nats added to every adapted logit. It moves log-sum-exp, and with it the paper's gap, and no softmax: a
            placebo for what moves the gap. Only `forward` knows it; where it is not 0, gradients come from autograd.

    Raises:
        ValueError: for an unknown kind or init, or the kind `feature` without a fitting head.

    Source:
        Rao et al., "Parameter-Efficient and Student-Friendly Knowledge Distillation" (2022): `serial` follows
        its vision code and `parallel` its language code. `feature` is the bottleneck of Houlsby et al. (2019)
        on the penultimate feature, `logit` is ours. The zero init is ours too.
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
    ) -> None:
        super().__init__()
        if kind not in KINDS:
            raise ValueError(unknown_name("adapter kind", kind, KINDS))
        if init not in INITS:
            raise ValueError(unknown_name("adapter init", init, INITS))
        self.kind = kind
        self.shift = shift
        if kind in ("serial", "parallel"):
            self.w1 = nn.Linear(feature_dim, num_classes)
        bottleneck_inputs = num_classes if kind in ("serial", "logit") else feature_dim
        self.w2 = nn.Linear(bottleneck_inputs, width)
        self.w3 = nn.Linear(width, feature_dim if kind == "feature" else num_classes)
        if kind == "feature":
            # A buffer that is not persistent follows .to() and stays out of parameters() and state_dict().
            weight = _weight_of(head, feature_dim, num_classes)
            self.register_buffer("head_weight", weight, persistent=False)
        if init == "zero":
            self._zero_the_correction()

    def _zero_the_correction(self) -> None:
        last_layers = (self.w3, self.w1) if self.kind == "parallel" else (self.w3,)
        for layer in last_layers:
            nn.init.zeros_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, feature: Tensor, logits: Tensor) -> Tensor:
        """The adapted logits.

        Args:
            feature: (B, D), the frozen teacher's penultimate feature.
            logits: (B, C), the frozen teacher's logits of that feature.

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
        # As z = head(f), head(f + b) - z is the head's weight times b: one product, and exactly 0 for b = 0.
        return logits + nn.functional.linear(self._bottleneck(feature), self.head_weight)

    def _bottleneck(self, inputs: Tensor) -> Tensor:
        hidden: Tensor = self.w3(torch.relu(self.w2(inputs)))
        return hidden


def _weight_of(head: nn.Linear | None, feature_dim: int, num_classes: int) -> Tensor:
    if head is None:
        raise ValueError("the adapter kind 'feature' applies the teacher's head: pass it as head=teacher.head")
    if head.weight.shape != (num_classes, feature_dim):
        raise ValueError(
            f"the head's weight has shape {tuple(head.weight.shape)}, "
            f"but {num_classes} classes and a feature of {feature_dim} need {(num_classes, feature_dim)}"
        )
    return head.weight.detach()
