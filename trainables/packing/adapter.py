"""Forward and backward pass of several adapters in closed form, as batched matrix products.

The formulas are those of `trainables.steps.adapter_formulas`. Weights are (K, out, in), sized for the widest adapter.
Narrower adapters are zero-padded. Padding units have zero weights and biases, so they output zero. The padding also
receives zero gradient: the gradient passes back through zero weights, and the next layer's padding sees zero input.
"""

from collections.abc import Mapping

import torch
from torch import Tensor


class PackedAdapterGradients:
    """Outputs and gradients of K adapters of one kind, equal to those of autograd.

    Args:
        kind: adapter kind; see `TeacherAdapter`.
        weights: `w1.weight` (K, out, in), `w1.bias` (K, out), ..., for the layers of this kind.
        gradients: tensors with the same names and shapes, overwritten by `backward`.
        head_weight: (C, D), weight of the teacher's head, needed for the kind `feature`.
    """

    def __init__(
        self, kind: str, weights: Mapping[str, Tensor], gradients: Mapping[str, Tensor], head_weight: Tensor | None
    ) -> None:
        self._kind = kind
        self._weights = {name: each for name, each in weights.items() if name.endswith("weight")}
        self._columns = {name.removesuffix(".weight"): each.mT for name, each in self._weights.items()}
        self._biases = {
            name.removesuffix(".bias"): each.unsqueeze(1) for name, each in weights.items() if name.endswith("bias")
        }
        self._gradients = gradients
        self._head_weight = head_weight
        self._saved: tuple[Tensor, ...] = ()

    @torch.no_grad()
    def forward(self, feature: Tensor, logits: Tensor) -> Tensor:
        """Compute the adapted logits (K, B, C).

        Args:
            feature: (K, B, D), teacher feature.
            logits: (K, B, C), teacher logits.
        """
        kind = self._kind
        inputs = feature if kind in ("parallel", "feature") else logits
        if kind == "serial":
            inputs = self._linear("w1", feature)
        hidden = self._linear("w2", inputs).relu_()
        correction = self._linear("w3", hidden)
        self._saved = (feature, inputs, hidden)
        if kind == "parallel":
            correction = correction.add_(self._linear("w1", feature))
        elif kind == "feature":
            assert self._head_weight is not None
            correction = correction @ self._head_weight.mT
        return correction.add_(logits)

    @torch.no_grad()
    def backward(self, gradient: Tensor) -> None:
        """Compute all gradients from the gradient (K, B, C) with respect to the last output of `forward`."""
        feature, inputs, hidden = self._saved
        self._saved = ()
        if self._kind == "parallel":
            self._enter("w1", gradient, feature)
        if self._kind == "feature":
            assert self._head_weight is not None
            gradient = gradient @ self._head_weight
        self._enter("w3", gradient, hidden)
        gradient = torch.bmm(gradient, self._weights["w3.weight"]).mul_(hidden.sign_())
        self._enter("w2", gradient, inputs)
        if self._kind == "serial":
            self._enter("w1", torch.bmm(gradient, self._weights["w2.weight"]), feature)

    def _linear(self, layer: str, inputs: Tensor) -> Tensor:
        return torch.baddbmm(self._biases[layer], inputs, self._columns[layer])

    def _enter(self, layer: str, gradient: Tensor, inputs: Tensor) -> None:
        torch.bmm(gradient.mT, inputs, out=self._gradients[f"{layer}.weight"])
        torch.sum(gradient, dim=1, out=self._gradients[f"{layer}.bias"])
