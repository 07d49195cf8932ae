"""Adapter training step with explicit formulas for the forward and backward pass instead of autograd.

The formulas hold for one adapter, and for K adapters of one kind along a leading axis of every tensor. Only a layer's
matrix products and sums depend on this axis: `SingleLayers` and `PackedLayers`.
"""

from collections.abc import Mapping
from typing import Final, Protocol

import torch
from torch import Tensor
from torch.nn.functional import linear

from trainables.steps.adapter import TeacherAdapter
from trainables.steps.sgd import Trainer

_LAYERS: Final = ("w1", "w2", "w3")


class Layers(Protocol):
    """An adapter's linear layers by name, `w1` to `w3`.

    Attributes:
        gradients: gradients of all weights and biases, by parameter name.
    """

    gradients: Mapping[str, Tensor]

    def linear(self, layer: str, inputs: Tensor) -> Tensor:
        """Compute a layer's outputs (..., B, out) for inputs (..., B, in), in new memory."""

    def input_gradient(self, layer: str, gradient: Tensor) -> Tensor:
        """Compute the gradient of a layer's inputs (..., B, in) from the outputs' gradient (..., B, out)."""

    def enter_gradients(self, layer: str, gradient: Tensor, inputs: Tensor) -> None:
        """Compute the gradients of a layer's weight and bias.

        Args:
            layer: layer name.
            gradient: (..., B, out), gradient of the layer's outputs.
            inputs: (..., B, in), the layer's inputs.
        """


class SingleLayers:
    """One adapter's layers.

    Args:
        parameters: `w1.weight` (out, in), `w1.bias` (out,), ..., for the layers of the adapter's kind.
    """

    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self.gradients: dict[str, Tensor] = {}
        self._parameters = {
            layer: (parameters[f"{layer}.weight"], parameters[f"{layer}.bias"])
            for layer in _LAYERS
            if f"{layer}.weight" in parameters
        }
        self._ones = torch.ones(0)

    def linear(self, layer: str, inputs: Tensor) -> Tensor:
        """Compute a layer's outputs (B, out)."""
        return linear(inputs, *self._parameters[layer])

    def input_gradient(self, layer: str, gradient: Tensor) -> Tensor:
        """Compute the gradient (B, in) of a layer's inputs."""
        return gradient @ self._parameters[layer][0]

    def enter_gradients(self, layer: str, gradient: Tensor, inputs: Tensor) -> None:
        """Compute the gradients of a layer's weight and bias."""
        if len(self._ones) != len(gradient):
            self._ones = gradient.new_ones(len(gradient))
        columns = gradient.t()
        self.gradients[f"{layer}.weight"] = columns @ inputs
        # Sum over rows with a matrix product: a fifth of the time of `sum` at these sizes.
        self.gradients[f"{layer}.bias"] = columns @ self._ones


class PackedLayers:
    """Layers of K adapters, sized for the widest adapter.

    Narrower adapters are zero-padded. Padding units have zero weights and biases, so they output zero. The padding also
    receives zero gradient: the gradient passes back through zero weights, and the next layer's padding sees zero input.

    Args:
        parameters: `w1.weight` (K, out, in), `w1.bias` (K, out), ..., for the layers of the adapters' kind.
        gradients: tensors with the same names and shapes, overwritten by `enter_gradients`.
    """

    def __init__(self, parameters: Mapping[str, Tensor], gradients: Mapping[str, Tensor]) -> None:
        self.gradients = gradients
        self.weights = {layer: parameters[f"{layer}.weight"] for layer in _LAYERS if f"{layer}.weight" in parameters}
        self._columns = {layer: weight.mT for layer, weight in self.weights.items()}
        self._biases = {layer: parameters[f"{layer}.bias"].unsqueeze(1) for layer in self.weights}

    def linear(self, layer: str, inputs: Tensor) -> Tensor:
        """Compute a layer's outputs (K, B, out)."""
        return torch.baddbmm(self._biases[layer], inputs, self._columns[layer])

    def input_gradient(self, layer: str, gradient: Tensor) -> Tensor:
        """Compute the gradient (K, B, in) of a layer's inputs."""
        return torch.bmm(gradient, self.weights[layer])

    def enter_gradients(self, layer: str, gradient: Tensor, inputs: Tensor) -> None:
        """Compute the gradients of a layer's weight and bias."""
        torch.bmm(gradient.mT, inputs, out=self.gradients[f"{layer}.weight"])
        torch.sum(gradient, dim=1, out=self.gradients[f"{layer}.bias"])


class AdapterFormulas:
    """Forward and backward pass of `TeacherAdapter` without autograd, for one adapter or K adapters of one kind.

    Args:
        adapter: the adapter, or one of the K adapters, with the same kind and teacher's head.
        layers: layers of the K adapters; by default the single adapter's layers.
    """

    def __init__(self, adapter: TeacherAdapter, layers: Layers | None = None) -> None:
        self._adapter = adapter
        self._kind = adapter.kind
        self._layers = SingleLayers(dict(adapter.named_parameters())) if layers is None else layers
        self._saved: tuple[Tensor, ...] = ()

    @torch.no_grad()
    def forward(self, feature: Tensor, logits: Tensor) -> Tensor:
        """Compute the adapted logits (..., B, C); see `TeacherAdapter.forward`.

        Args:
            feature: (..., B, D), teacher feature.
            logits: (..., B, C), teacher logits.
        """
        kind, layers = self._kind, self._layers
        inputs = feature if kind in ("parallel", "feature") else logits
        if kind == "serial":
            inputs = layers.linear("w1", feature)
        hidden = layers.linear("w2", inputs).relu_()
        correction = layers.linear("w3", hidden)
        self._saved = (feature, inputs, hidden)
        if kind == "parallel":
            # Add in the same order as the module, to get the same bits.
            return (logits + layers.linear("w1", feature)).add_(correction)
        if kind == "feature":
            correction = linear(correction, self._adapter.head_weight)
        return correction.add_(logits)

    @torch.no_grad()
    def backward(self, gradient: Tensor) -> Mapping[str, Tensor]:
        """Compute all parameter gradients by name.

        Args:
            gradient: (..., B, C), gradient with respect to the last output of `forward`.
        """
        kind, layers = self._kind, self._layers
        feature, inputs, hidden = self._saved
        self._saved = ()
        if kind == "parallel":
            layers.enter_gradients("w1", gradient, feature)
        if kind == "feature":
            gradient = gradient @ self._adapter.head_weight
        layers.enter_gradients("w3", gradient, hidden)
        # A ReLU's output is positive or zero, so the output's sign is the derivative.
        gradient = layers.input_gradient("w3", gradient).mul_(hidden.sign_())
        layers.enter_gradients("w2", gradient, inputs)
        if kind == "serial":
            layers.enter_gradients("w1", layers.input_gradient("w2", gradient), feature)
        return layers.gradients


class AdapterStep:
    """Forward pass, backward pass and SGD step for one adapter or K adapters.

    Args:
        formulas: formulas for the adapter or the K adapters.
        trainer: the adapter's trainer; None if the student's optimiser updates the adapter as well, as in a pack.
    """

    def __init__(self, formulas: AdapterFormulas, trainer: Trainer | None = None) -> None:
        self._formulas = formulas
        self._trainer = trainer

    def forward(self, feature: Tensor, logits: Tensor) -> Tensor:
        """Compute the adapted logits (..., B, C); see `TeacherAdapter.forward`."""
        return self._formulas.forward(feature, logits)

    def backward(self, gradient: Tensor) -> None:
        """Compute the adapter's gradients, and take one step if the adapter has a trainer.

        Args:
            gradient: (..., B, C), gradient with respect to the last adapted logits.
        """
        gradients = self._formulas.backward(gradient)
        if self._trainer is not None:
            self._trainer.step(gradients)
