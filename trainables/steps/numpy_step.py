"""Gradients and adapter step in NumPy, for batches so small that PyTorch's call overhead exceeds the computation.

With 64 samples and 10 classes, a PyTorch call between the convolutions of a step takes 5 to 10 µs however small the
computation. A NumPy call takes a third of this time. `NumpyForm` and `NumpyAdapterStep` compute the same as
`ClosedForm` and `AdapterStep`, with the formulas in `trainables.steps.closed_form`. NumPy arrays share memory with the
input and output tensors. Gradients and adapted logits are returned in buffers, overwritten by the next call.

The shapes alone fix the summation order, so equal trials give equal bits.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor

from trainables.steps.adapter import TeacherAdapter
from trainables.steps.closed_form import ClosedForm, Gradients
from trainables.steps.sgd import Trainer

# Multiplications in a matrix-matrix and in a matrix-vector product; with batch size or width one, it is the latter. Up
# to these sizes OpenBLAS, which comes with NumPy's wheels, uses one thread even if more are allowed. On one thread, an
# adapter step of this size takes 0.5 to 0.6 of PyTorch's time in NumPy. From ten times this size on, NumPy is no
# faster; with 1,000 classes and a feature of 2,048, NumPy takes 1.2 to 1.6 of PyTorch's time.
_LARGEST_PRODUCT: Final = 1 << 18
_LARGEST_VECTOR_PRODUCT: Final = 9_216
# Logits in a batch. Up to this number, NumPy takes 0.6 to 0.9 of PyTorch's time for the gradients; with 1,000 classes
# NumPy takes 1.05.
_LARGEST_LOGITS: Final = 1 << 13
# A diverged trial is reported at the epoch's end, so NumPy's warnings are turned off.
_QUIETLY: Final = np.errstate(all="ignore")


def fits_form(device: torch.device, batch_size: int, classes: int) -> bool:
    """Return whether `NumpyForm` is the faster way to compute an objective's gradients."""
    return device.type == "cpu" and batch_size * classes <= _LARGEST_LOGITS


def fits_adapter(adapter: TeacherAdapter, device: torch.device, batch_size: int) -> bool:
    """Return whether `NumpyAdapterStep` is the faster way to take an adapter's step."""
    weights: list[Tensor] = [each for each in adapter.parameters() if each.dim() == 2]
    if adapter.kind == "feature":
        weights.append(adapter.head_weight)
    largest = max(each.numel() for each in weights)
    vectors = [largest]
    vectors += [batch_size * max(each.shape) for each in weights if min(each.shape) == 1]
    fits = batch_size * largest <= _LARGEST_PRODUCT and max(vectors) <= _LARGEST_VECTOR_PRODUCT
    return device.type == "cpu" and fits


class NumpyForm:
    """One objective's gradients, with the formulas and names of `ClosedForm`.

    Args:
        form: objective with plain numbers, not tensors.
    """

    def __init__(self, form: ClosedForm) -> None:
        self._form = form
        self._key: tuple[object, ...] = ()

    @_QUIETLY
    def __call__(self, student_logits: Tensor, target_logits: Tensor, labels: Tensor) -> Gradients:
        """Compute one batch's gradients.

        Args:
            student_logits: (B, C) float, on the CPU.
            target_logits: (B, C), the adapted or frozen teacher's logits, without gradient.
            labels: (B,) int64.
        """
        key = student_logits.shape, student_logits.dtype
        if self._key != key:
            batch, classes = student_logits.shape
            self._prepare(batch, classes, student_logits.dtype)
            self._key = key
        p, norm = self._p, self._norm
        log_p = np.empty_like(p)  # a new array, because the loss log keeps it
        log_p[0] = student_logits.detach().numpy().T
        log_p[1] = target_logits.numpy().T
        np.multiply(log_p[:2], self._inverse_temperature, out=log_p[2:])
        np.maximum.reduce(log_p, axis=1, out=norm, keepdims=True)
        log_p -= norm
        np.exp(log_p, out=p)
        np.add.reduce(p, axis=1, out=norm, keepdims=True)
        p /= norm
        log_p -= np.log(norm, out=norm)
        # No label needs clipping, but mode="clip" avoids a copy.
        self._unit.take(labels.numpy(), axis=1, out=self._truth, mode="clip")
        np.dot(self._weights, self._rows, out=self._gradients)
        if self._divergence_weight is not None:
            difference = np.subtract(log_p[3], log_p[2], out=self._difference)
            product = np.multiply(p[3], difference, out=self._product)
            difference -= np.add.reduce(product, axis=0, out=self._mean)
            difference *= p[3]
            difference *= self._divergence_weight
            self._in_target += difference
        return Gradients(self._student, self._target, torch.from_numpy(log_p))

    def _prepare(self, batch: int, classes: int, dtype: torch.dtype) -> None:
        form = self._form
        terms = _zeros(5, classes, batch, dtype=dtype)
        self._p, self._truth, self._rows = terms[:4], terms[4], terms.reshape(5, -1)
        self._norm = _zeros(4, 1, batch, dtype=dtype)
        self._unit = np.eye(classes, dtype=terms.dtype)
        self._inverse_temperature = 1 / float(form.temperature)
        self._weights = np.array([[float(each) / batch for each in row] for row in form.linear], dtype=terms.dtype)
        weight = form.divergence_weight
        self._divergence_weight = None if weight is None else float(weight) / batch
        self._difference, self._product = _zeros(2, classes, batch, dtype=dtype)
        self._mean = _zeros(batch, dtype=dtype)
        self._gradients = _zeros(2, classes * batch, dtype=dtype)
        in_student, self._in_target = self._gradients.reshape(2, classes, batch)
        self._student = torch.from_numpy(in_student.T)
        self._target = torch.from_numpy(self._in_target.T) if form.has_adapter else None


class NumpyAdapterStep:
    """Forward pass, backward pass and SGD step for an adapter in NumPy; see `AdapterStep`.

    All weights lie in one memory block and all momenta in another, so SGD needs only a few calls. Other code may move
    them elsewhere, for example a pack or a loaded state. The next forward pass then moves them back.

    Args:
        adapter: any adapter on the CPU.
        trainer: the adapter's trainer.
    """

    def __init__(self, adapter: TeacherAdapter, trainer: Trainer) -> None:
        self._kind = adapter.kind
        self._head_weight = adapter.head_weight if adapter.kind == "feature" else None
        self._adapter = adapter
        self._trainer = trainer
        self._moves = -1
        self._batch = -1

    @_QUIETLY
    def forward(self, feature: Tensor, logits: Tensor) -> Tensor:
        """Compute the adapted logits (B, C); see `TeacherAdapter.forward`."""
        if self._moves != self._trainer.moves:
            self._move_in()
        if self._batch != len(feature):
            self._prepare(len(feature))
        self._feature = inputs = feature.numpy()
        given = logits.numpy()
        if self._kind == "serial":
            inputs = self._linear("w1", inputs)
        elif self._kind == "logit":
            inputs = given
        self._inputs = inputs
        hidden = self._linear("w2", inputs)
        np.maximum(hidden, 0, out=hidden)
        correction = self._linear("w3", hidden)
        if self._kind == "parallel":
            given = np.add(given, self._linear("w1", self._feature), out=self._adapted)
        elif self._kind == "feature":
            correction = np.dot(correction, self._head.T, out=self._correction)
        np.add(given, correction, out=self._adapted)
        return self._adapted_tensor

    @_QUIETLY
    def backward(self, gradient: Tensor) -> None:
        """Compute the gradients and take one SGD step.

        Args:
            gradient: (B, C), gradient with respect to the last adapted logits.
        """
        array = gradient.numpy()
        hidden = self._outputs["w2"]
        if self._kind == "parallel":
            self._enter("w1", array, self._feature)
        elif self._kind == "feature":
            array = np.dot(array, self._head, out=self._outputs["w3"])
        self._enter("w3", array, hidden)
        array = np.dot(array, self._weights["w3"], out=self._in_hidden)
        # A ReLU's output is positive or zero, so the output's sign is the derivative.
        array *= np.sign(hidden, out=hidden)
        self._enter("w2", array, self._inputs)
        if self._kind == "serial":
            self._enter("w1", np.dot(array, self._weights["w2"], out=self._in_first), self._feature)
        self._take_step()

    def _linear(self, layer: str, inputs: np.ndarray) -> np.ndarray:
        outputs = np.dot(inputs, self._weights[layer].T, out=self._outputs[layer])
        outputs += self._biases[layer]
        return outputs

    def _enter(self, layer: str, gradient: np.ndarray, inputs: np.ndarray) -> None:
        np.dot(gradient.T, inputs, out=self._weight_gradients[layer])
        np.add.reduce(gradient, axis=0, out=self._bias_gradients[layer])

    def _take_step(self) -> None:
        """Apply SGD with momentum and coupled weight decay, as in `sgd_step`."""
        trainer, step, scratch = self._trainer, self._gradients, self._scratch
        if trainer.weight_decay:
            step += np.multiply(self._parameters, trainer.weight_decay, out=scratch)
        if trainer.momentum:
            self._momenta *= trainer.momentum
            self._momenta += step
            step = self._momenta
        self._parameters -= np.multiply(step, trainer.rate, out=scratch)

    def _move_in(self) -> None:
        own = self._trainer.parameters
        numel = sum(each.numel() for each in own.values())
        like = next(iter(own.values()))
        parameters, momenta, gradients = (torch.zeros(numel, dtype=like.dtype) for _ in range(3))
        self._trainer.move(_parts(parameters, own), _parts(momenta, own))
        self._moves = self._trainer.moves
        self._parameters, self._momenta, self._gradients = parameters.numpy(), momenta.numpy(), gradients.numpy()
        self._scratch = np.empty_like(self._gradients)
        self._weights, self._biases = _layers(_parts(parameters, own))
        self._weight_gradients, self._bias_gradients = _layers(_parts(gradients, own))
        self._batch = -1

    def _prepare(self, batch: int) -> None:
        dtype = next(iter(self._trainer.parameters.values())).dtype
        self._outputs = {layer: _zeros(batch, len(bias), dtype=dtype) for layer, bias in self._biases.items()}
        self._in_hidden = np.empty_like(self._outputs["w2"])
        self._in_first = np.empty_like(self._outputs["w1"]) if self._kind == "serial" else None
        classes = len(self._biases["w3"])
        if self._head_weight is not None:
            self._head = self._adapter.head_weight.numpy()
            classes = len(self._head)
            self._correction = _zeros(batch, classes, dtype=dtype)
        self._adapted = _zeros(batch, classes, dtype=dtype)
        self._adapted_tensor = torch.from_numpy(self._adapted)
        self._batch = batch


def _zeros(*shape: int, dtype: torch.dtype) -> np.ndarray:
    # PyTorch always aligns memory to 64 bytes, so alignment cannot change a kernel's addition order.
    return torch.zeros(shape, dtype=dtype).numpy()


def _parts(memory: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Split a memory block into consecutive tensors with the names and shapes of `like`."""
    pieces = memory.split([each.numel() for each in like.values()])
    return {name: piece.view(each.shape) for (name, each), piece in zip(like.items(), pieces, strict=True)}


def _layers(tensors: dict[str, Tensor]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Return the weights and the biases as arrays by layer name."""
    weights, biases = (
        {name.partition(".")[0]: each.numpy() for name, each in tensors.items() if name.endswith(kind)}
        for kind in (".weight", ".bias")
    )
    return weights, biases
