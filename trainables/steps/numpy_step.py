"""The step of what teaches, in NumPy: for batches so small that calling PyTorch costs more than computing.

At 64 samples of 10 classes a PyTorch call takes 5 to 10 µs between the convolutions of a step, however little it
computes, and a NumPy call a third of that. `NumpyForm` and `NumpyAdapterStep` compute what `ClosedForm` and
`AdapterStep` do, by the formulas that `trainables.steps.closed_form` states, in memory that they share with the tensors
that they take and give. What they give lies in buffers and holds until they are called again.

The sums run in an order that the shapes alone fix, so equal trials have equal bits.
"""

from collections.abc import Mapping
from typing import Final

import numpy as np
import torch
from torch import Tensor

from trainables.steps.adapter import TeacherAdapter
from trainables.steps.closed_form import ClosedForm, Gradients
from trainables.steps.sgd import Trainer

# Multiplications in a product of two matrices, and of one and a vector, which it is in a batch of one or at a width of
# one. Up to here OpenBLAS, which NumPy's wheels come with, stays on one thread however many it may use. On one thread
# an adapter's step in NumPy takes 0.5 to 0.6 of the time here, and no less from ten times as many on; 1.2 to 1.6 with
# 1,000 classes and a feature of 2,048.
_LARGEST_PRODUCT: Final = 1 << 18
_LARGEST_VECTOR_PRODUCT: Final = 9_216
# Numbers in a batch's logits. The gradients take 0.6 to 0.9 of the time in NumPy up to here, and 1.05 with 1,000
# classes.
_LARGEST_LOGITS: Final = 1 << 13
# A trial that has blown up is reported at the end of its epoch, and not by warnings.
_QUIETLY: Final = np.errstate(all="ignore")


def fits_form(device: torch.device, batch_size: int, classes: int) -> bool:
    """Whether an objective's gradients are better computed here."""
    return device.type == "cpu" and batch_size * classes <= _LARGEST_LOGITS


def fits_adapter(adapter: TeacherAdapter, device: torch.device, batch_size: int) -> bool:
    """Whether an adapter's step is better made here."""
    weights: list[Tensor] = [each for each in adapter.parameters() if each.dim() == 2]
    if adapter.kind == "feature":
        weights.append(adapter.head_weight)
    largest = max(each.numel() for each in weights)
    vectors = [largest]
    vectors += [batch_size * max(each.shape) for each in weights if min(each.shape) == 1]
    fits = batch_size * largest <= _LARGEST_PRODUCT and max(vectors) <= _LARGEST_VECTOR_PRODUCT
    return device.type == "cpu" and fits


class NumpyForm:
    """Gradients of one objective; see `ClosedForm`, whose formulas and names these are.

    Args:
        form: the objective, with numbers and not tensors of them.
    """

    def __init__(self, form: ClosedForm) -> None:
        self._form = form
        self._key: tuple[object, ...] = ()

    @_QUIETLY
    def __call__(self, student_logits: Tensor, taught_by: Tensor, labels: Tensor) -> Gradients:
        """The gradients of one batch.

        Args:
            student_logits: (B, C) float, on the CPU.
            taught_by: (B, C), the adapted or the frozen teacher's logits, without gradient.
            labels: (B,) int64.
        """
        key = student_logits.shape, student_logits.dtype
        if self._key != key:
            batch, classes = student_logits.shape
            self._prepare(batch, classes, student_logits.dtype)
            self._key = key
        p, norm = self._p, self._norm
        log_p = np.empty_like(p)  # the log of losses keeps it
        log_p[0] = student_logits.detach().numpy().T
        log_p[1] = taught_by.numpy().T
        np.multiply(log_p[:2], self._coldness, out=log_p[2:])
        np.maximum.reduce(log_p, axis=1, out=norm, keepdims=True)
        log_p -= norm
        np.exp(log_p, out=p)
        np.add.reduce(p, axis=1, out=norm, keepdims=True)
        p /= norm
        log_p -= np.log(norm, out=norm)
        # `clip`, which no label needs, spares a copy.
        self._unit.take(labels.numpy(), axis=1, out=self._truth, mode="clip")
        np.dot(self._weights, self._rows, out=self._gradients)
        if self._pull is not None:
            difference = np.subtract(log_p[3], log_p[2], out=self._difference)
            product = np.multiply(p[3], difference, out=self._product)
            difference -= np.add.reduce(product, axis=0, out=self._mean)
            difference *= p[3]
            difference *= self._pull
            self._in_taught_by += difference
        return Gradients(self._student, self._taught_by, torch.from_numpy(log_p))

    def _prepare(self, batch: int, classes: int, dtype: torch.dtype) -> None:
        form = self._form
        terms = _zeros(5, classes, batch, dtype=dtype)
        self._p, self._truth, self._rows = terms[:4], terms[4], terms.reshape(5, -1)
        self._norm = _zeros(4, 1, batch, dtype=dtype)
        self._unit = np.eye(classes, dtype=terms.dtype)
        self._coldness = 1 / float(form.temperature)
        self._weights = np.array([[float(each) / batch for each in row] for row in form.linear], dtype=terms.dtype)
        self._pull = None if form.pull_on_adapter is None else float(form.pull_on_adapter) / batch
        self._difference, self._product = _zeros(2, classes, batch, dtype=dtype)
        self._mean = _zeros(batch, dtype=dtype)
        self._gradients = _zeros(2, classes * batch, dtype=dtype)
        in_student, self._in_taught_by = self._gradients.reshape(2, classes, batch)
        self._student = torch.from_numpy(in_student.T)
        self._taught_by = torch.from_numpy(self._in_taught_by.T) if form.has_adapter else None


class NumpyAdapterStep:
    """The adapter forward, backward and down its gradients; see `AdapterStep`.

    Weights and momenta live in one stretch of memory each, where SGD takes a few calls for all of them. Where somebody
    else has moved them since (a pack, a loaded state), the next step moves them back.

    Args:
        adapter: any kind, on the CPU.
        trainer: its own.
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
        """The adapted logits (B, C); see `TeacherAdapter.forward`."""
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
    def learn(self, gradient: Tensor) -> None:
        """One step of SGD, from the gradient (B, C) in the logits that `forward` gave last."""
        pull = gradient.numpy()
        hidden = self._outputs["w2"]
        if self._kind == "parallel":
            self._enter("w1", pull, self._feature)
        elif self._kind == "feature":
            pull = np.dot(pull, self._head, out=self._outputs["w3"])
        self._enter("w3", pull, hidden)
        pull = np.dot(pull, self._weights["w3"], out=self._in_hidden)
        # What a rectifier lets through is positive: its sign is its derivative.
        pull *= np.sign(hidden, out=hidden)
        self._enter("w2", pull, self._inputs)
        if self._kind == "serial":
            self._enter("w1", np.dot(pull, self._weights["w2"], out=self._in_first), self._feature)
        self._descend()

    def _linear(self, layer: str, inputs: np.ndarray) -> np.ndarray:
        outputs = np.dot(inputs, self._weights[layer].T, out=self._outputs[layer])
        outputs += self._biases[layer]
        return outputs

    def _enter(self, layer: str, gradient: np.ndarray, inputs: np.ndarray) -> None:
        np.dot(gradient.T, inputs, out=self._weight_gradients[layer])
        np.add.reduce(gradient, axis=0, out=self._bias_gradients[layer])

    def _descend(self) -> None:
        """SGD with momentum and coupled weight decay, as `Trainer.step` makes it."""
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
    # PyTorch's memory begins at multiples of 64 bytes, always: no kernel's order of additions can differ by that.
    return torch.zeros(shape, dtype=dtype).numpy()


def _parts(memory: Tensor, like: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A stretch of memory as tensors of these names and shapes, one after the other."""
    pieces = memory.split([each.numel() for each in like.values()])
    return {name: piece.view(each.shape) for (name, each), piece in zip(like.items(), pieces, strict=True)}


def _layers(tensors: dict[str, Tensor]) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    """Weights and biases by layer."""
    weights, biases = (
        {name.partition(".")[0]: each.numpy() for name, each in tensors.items() if name.endswith(kind)}
        for kind in (".weight", ".bias")
    )
    return weights, biases
