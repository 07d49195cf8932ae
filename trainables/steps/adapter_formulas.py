"""Training step of an adapter with explicit formulas for the forward and backward pass instead of autograd."""

import torch
from torch import Tensor
from torch.nn.functional import linear

from trainables.steps.adapter import TeacherAdapter
from trainables.steps.sgd import Trainer


class AdapterGradients:
    """Forward and backward pass of `TeacherAdapter`, without autograd.

    Args:
        adapter: adapter of any kind.
    """

    def __init__(self, adapter: TeacherAdapter) -> None:
        self._adapter = adapter
        self._saved: tuple[Tensor, ...] = ()
        self._ones = torch.ones(0)

    @torch.no_grad()
    def forward(self, feature: Tensor, logits: Tensor) -> Tensor:
        """Compute the adapted logits (B, C); see `TeacherAdapter.forward`."""
        adapter = self._adapter
        inputs = feature if adapter.kind in ("parallel", "feature") else logits
        if adapter.kind == "serial":
            inputs = linear(feature, adapter.w1.weight, adapter.w1.bias)
        hidden = linear(inputs, adapter.w2.weight, adapter.w2.bias).relu_()
        correction = linear(hidden, adapter.w3.weight, adapter.w3.bias)
        self._saved = (feature, inputs, hidden)
        if adapter.kind == "parallel":
            # Add in the same order as the module, to get the same bits.
            return (logits + linear(feature, adapter.w1.weight, adapter.w1.bias)).add_(correction)
        if adapter.kind == "feature":
            return logits + linear(correction, adapter.head_weight)
        return correction.add_(logits)

    @torch.no_grad()
    def backward(self, gradient: Tensor) -> dict[str, Tensor]:
        """Compute all parameter gradients by name, from the gradient (B, C) with respect to the last adapted logits."""
        adapter = self._adapter
        feature, inputs, hidden = self._saved
        self._saved = ()
        gradients: dict[str, Tensor] = {}
        if adapter.kind == "parallel":
            self._enter(gradients, "w1", gradient, feature)
        if adapter.kind == "feature":
            gradient = gradient @ adapter.head_weight
        self._enter(gradients, "w3", gradient, hidden)
        # The output of a ReLU is positive or zero, so the sign of the output is the derivative.
        gradient = (gradient @ adapter.w3.weight).mul_(hidden.sign_())
        self._enter(gradients, "w2", gradient, inputs)
        if adapter.kind == "serial":
            self._enter(gradients, "w1", gradient @ adapter.w2.weight, feature)
        return gradients

    def _enter(self, gradients: dict[str, Tensor], layer: str, gradient: Tensor, inputs: Tensor) -> None:
        if len(self._ones) != len(gradient):
            self._ones = gradient.new_ones(len(gradient))
        columns = gradient.t()
        gradients[f"{layer}.weight"] = columns @ inputs
        # Sum over rows with a matrix product, which takes a fifth of the time of `sum` at these sizes.
        gradients[f"{layer}.bias"] = columns @ self._ones


class AdapterStep:
    """Forward pass and SGD step of an adapter.

    Args:
        adapter: adapter of any kind.
        trainer: trainer of the adapter.
    """

    def __init__(self, adapter: TeacherAdapter, trainer: Trainer) -> None:
        self._gradients = AdapterGradients(adapter)
        self._trainer = trainer

    def forward(self, feature: Tensor, logits: Tensor) -> Tensor:
        """Compute the adapted logits (B, C); see `TeacherAdapter.forward`."""
        return self._gradients.forward(feature, logits)

    def learn(self, gradient: Tensor) -> None:
        """Take one SGD step, from the gradient (B, C) with respect to the last adapted logits."""
        self._trainer.step(self._gradients.backward(gradient))
