"""Costs determined by a trial's configuration: trainable parameters, and FLOPs per step of each part.

FLOPs are counted by PyTorch's formulas (`torch.utils.flop_counter`) for matrix products, convolutions and attention;
a multiplication and an addition count as two. Normalisation, activations, losses without these products, and optimiser
steps count as zero. For example, the 40.8 million multiplications of resnet20 are 81.6 MFLOPs forward. Backward takes
twice as many, minus the gradient of the first layer with respect to the images, which is not needed.

FLOPs are counted during a real autograd step, even if the trial computes gradients by closed form. Networks are run on
two samples, because their FLOPs are proportional to the number of samples. Losses and the method's parts are run on a
batch of the trial's size, because their FLOPs may not be proportional. Each combination of shapes is counted once per
process. Counting uses copies of the trainable modules, float32 and separate random numbers, so the trial is unchanged.
"""

import copy
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils._python_dispatch import TorchDispatchMode

from trainables.batches.images import Batch
from trainables.models import DistillationModel
from trainables.models.compute import forward_pass
from trainables.models.ensemble import MeanProbability
from trainables.process.randomness import generator_from, seeded
from trainables.run.run import DistillationRun
from trainables.spec.measures import COST_PARTS
from trainables.spec.methods import AdapterSettings
from trainables.steps.sgd import count_parameters
from trainables.teacher_outputs.batch import TeacherBatch

_FEW: Final = 2  # BatchNorm needs more than one value per channel
_COPIED: Final = ("student", "adapter", "parts", "companion")


class Flops(NamedTuple):
    """Forward and backward FLOPs per example."""

    forward: float = 0.0
    backward: float = 0.0

    @property
    def total(self) -> float:
        """Sum of forward and backward FLOPs."""
        return self.forward + self.backward


@dataclass(frozen=True)
class CostLedger:
    """Costs of a trial, known before the first step; FLOPs are per train example.

    Args:
        parameters: number of trainable parameters by module (`student`, `adapter`, `method`, `peer`, `teacher`).
        flops: FLOPs per step by part (`COST_PARTS`). For a frozen teacher, this is a full forward pass if the
            teacher is live, and the head only if the feature is stored. Forward passes for storing teacher outputs are
            not included, because many trials share the stored outputs.
        teacher_pass: FLOPs of one full teacher pass; None if the trial uses no frozen teacher.
        stored_bytes: size of the stored teacher outputs used by the trial; 0 if nothing is stored.
        stored_passes: teacher passes over the train split needed to store the teacher outputs used by the trial; 0 if
            the trial uses no stored outputs.
        train_examples: examples per epoch.
    """

    parameters: Mapping[str, int]
    flops: Mapping[str, Flops]
    teacher_pass: float | None
    stored_bytes: int
    stored_passes: int
    train_examples: int

    @property
    def step_flops(self) -> float:
        """FLOPs per step, summed over all parts."""
        return sum(part.total for part in self.flops.values())

    @property
    def to_ce(self) -> float:
        """Ratio of `step_flops` to the student's part.

        The student's part is the cost of a cross-entropy step, or of two steps if the layers run twice.
        """
        return self.step_flops / self.flops["student"].total

    @property
    def facts(self) -> dict[str, float]:
        """All costs, named as in `COST_FACTS`.

        Parts missing in the trial are 0, except the teacher pass, which is left out.
        """
        own = self.parameters.get("student", 0) + self.parameters.get("adapter", 0)
        facts = {
            "cost/train_examples": self.train_examples,
            "cost/student_parameters": self.parameters["student"],
            "cost/other_parameters": sum(self.parameters.values()) - own,
            **{f"cost/forward_flops_{name}": part.forward for name, part in self.flops.items()},
            **{f"cost/backward_flops_{name}": part.backward for name, part in self.flops.items()},
            "cost/step_flops": self.step_flops,
            "cost/step_flops_to_ce": self.to_ce,
            "cost/stored_bytes": self.stored_bytes,
            "cost/stored_passes": self.stored_passes,
        }
        if self.teacher_pass is not None:
            facts["cost/teacher_pass_flops"] = self.teacher_pass
        return {name: float(value) for name, value in facts.items()}


def count_costs(run: DistillationRun) -> CostLedger:
    """Count a trial's costs.

    Args:
        run: the trial, at any time between steps; left unchanged.
    """
    runs_frozen_teacher = run.method.spec.needs_teacher and "teacher" not in run.trainers
    outputs = run.teacher_outputs
    slots = run.batches.slots if runs_frozen_teacher else 0
    return CostLedger(
        parameters={name: count_parameters([module]) for name, module in run.trainable.items()},
        flops={name: Flops() for name in COST_PARTS} | _flops_of(run, runs_frozen_teacher=runs_frozen_teacher),
        teacher_pass=_teacher_pass(run) if runs_frozen_teacher else None,
        stored_bytes=outputs.stored_bytes(slots) if outputs is not None else 0,
        stored_passes=slots if outputs is not None and outputs.stored else 0,
        train_examples=len(run.dataset.train),
    )


class FlopCounter(TorchDispatchMode):
    """Counter of the FLOPs within a `with` block by PyTorch's formulas, backward passes included.

    The counts equal those of `torch.utils.flop_counter.FlopCounterMode`. This class imports PyTorch's compiler on first
    use, which takes a second per process.
    """

    def __init__(self) -> None:
        super().__init__()
        # Imported here because the import takes 0.1 s, which importing this module alone should not cost.
        from torch.utils.flop_counter import flop_registry

        self.flops = 0
        self._formulas: Mapping[Any, Callable[..., int]] = flop_registry

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        # The name is PyTorch's. Without this method, PyTorch wraps `__torch_dispatch__` to hide it from the compiler.
        return False

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        result = func(*args, **kwargs)
        formula = self._formulas.get(func._overloadpacket)
        if formula is not None:
            self.flops += formula(*args, **kwargs, out_val=result)
        return result


_known: dict[tuple[object, ...], Flops] = {}


def _cached(key: tuple[object, ...], count: Callable[[], Flops]) -> Flops:
    if key not in _known:
        _known[key] = count()
    return _known[key]


def _shape_of(run: DistillationRun) -> tuple[object, ...]:
    return run.batches.shape(), run.dataset.num_classes, run.method.spec.shares_layers, str(run.device)


def _flops_of(run: DistillationRun, *, runs_frozen_teacher: bool) -> dict[str, Flops]:
    config, shape = run.config, _shape_of(run)
    flops = {"student": _cached((config.student, *shape), lambda: _network(run, run.student))}
    companions = {
        name: each.module for name, each in run.trainers.items() if name not in ("student", "adapter", "method")
    }
    for name, module in companions.items():
        key = (name, run.method.name, config.student, config.teacher, *shape)
        flops[name] = _cached(key, lambda module=module: _network(run, module))  # type: ignore[misc]
    if runs_frozen_teacher:
        assert run.teacher is not None
        assert run.teacher_outputs is not None
        last = run.teacher.head
        head = Flops() if isinstance(last, MeanProbability) else Flops(2.0 * last.in_features * last.out_features)
        flops["teacher"] = head if run.teacher_outputs.stored else Flops(_teacher_pass(run))
    adapter = Flops()
    if run.adapter is not None:
        settings = config.settings_of(AdapterSettings)
        learns = "adapter" in run.trainable
        form = settings.adapter_kind, settings.adapter_width, settings.adapter_count, learns
        key = ("adapter", *form, config.teacher, *shape)
        adapter = flops["adapter"] = _cached(key, lambda: _adapter(run))
    others = [adapter, *(flops[name] for name in companions)]
    key = ("method", *_method_key(run), *shape)
    flops["method"] = _cached(key, lambda: _method(run, others))
    return flops


def _teacher_pass(run: DistillationRun) -> float:
    """Return the forward FLOPs per example, in eval mode and without gradient to leave the teacher unchanged."""
    assert run.teacher is not None
    model = run.teacher.model

    def count() -> Flops:
        with _flop_counter(run) as counter, torch.no_grad():
            model.head(model.features(run.batches.example(_FEW)))
        return Flops(counter.flops / _FEW)

    return _cached(("frozen", run.config.teacher, *_shape_of(run)), count).forward


def _network(run: DistillationRun, module: nn.Module) -> Flops:
    model = copy.deepcopy(module).train()
    assert isinstance(model, DistillationModel)
    inputs = run.batches.example(_FEW)
    return _forward_and_backward(run, lambda: model.head(model.features(inputs)).sum(), _FEW)


def _adapter(run: DistillationRun) -> Flops:
    # No copy is needed, because the adapter keeps no state of a pass. A search over the width counts in every trial.
    assert run.teacher is not None
    adapter, head = run.adapter, run.teacher.head
    assert adapter is not None
    feature, logits = (torch.zeros(_FEW, size, device=run.device) for size in (head.in_features, head.out_features))
    if "adapter" not in run.trainable:  # a frozen adapter has no backward pass
        with _flop_counter(run) as counter:
            adapter(feature, logits)
        return Flops(counter.flops / _FEW)
    return _forward_and_backward(run, lambda: adapter(feature, logits).sum(), _FEW, list(adapter.parameters()))


def _method_key(run: DistillationRun) -> tuple[object, ...]:
    """Return all values relevant for the shapes of the losses' products; floats count only as zero or not."""
    fields = sorted(run.method.loss_fields | run.method.parts_fields)
    values = ((name, getattr(run.config, name)) for name in fields)
    shaping = tuple((name, value != 0 if isinstance(value, float) else value) for name, value in values)
    config = run.config
    return run.method.name, run.adapter is not None, config.student, config.teacher, config.batch_size, shaping


def _method(run: DistillationRun, others: list[Flops]) -> Flops:
    """Count the losses with all involved networks, minus the networks' passes."""
    isolated = _isolated_copy(run)
    isolated.epoch = run.config.epochs - 1  # some methods' first epochs differ, e.g. a warm-up
    isolated.begin_drawing()
    batch = _batch(run)
    size = len(batch.labels)
    feature, logits, maps = _random_student_outputs(run, batch.inputs)
    own = _forward_and_backward(run, lambda: isolated.losses(feature, logits, batch.teacher, batch, maps).total, size)
    return Flops(
        own.forward - sum(each.forward for each in others), own.backward - sum(each.backward for each in others)
    )


def _forward_and_backward(
    run: DistillationRun, forward: Callable[[], Tensor], examples: int, inputs: Sequence[Tensor] = ()
) -> Flops:
    """Count a loss and the gradients of `inputs`, which is left unchanged; without `inputs`, all gradients."""
    with _flop_counter(run) as counter:
        loss = forward()
        forward_flops = counter.flops
        if inputs:
            torch.autograd.grad(loss, inputs)
        else:
            loss.backward()
    return Flops(forward_flops / examples, (counter.flops - forward_flops) / examples)


@contextmanager
def _flop_counter(run: DistillationRun) -> Iterator[FlopCounter]:
    # Attention as plain matrix products, the only form with formulas on every device.
    with seeded(0, run.device), torch.enable_grad(), sdpa_kernel(SDPBackend.MATH), FlopCounter() as counter:
        yield counter


def _isolated_copy(run: DistillationRun) -> DistillationRun:
    """Return the same trial with copies of the networks."""
    isolated = copy.copy(run)
    isolated.workers = None
    copied: dict[int, Any] = {id(run.teacher): run.teacher}
    for name in _COPIED:
        setattr(isolated, name, copy.deepcopy(getattr(run, name, None), copied))
    return isolated


def _batch(run: DistillationRun) -> Batch:
    """Return the first train samples with example inputs of the same shape and random teacher outputs."""
    size = min(run.config.batch_size, len(run.dataset.train))
    inputs = run.batches.example(size)
    teacher = None
    if run.teacher is not None:
        few = run.teacher(inputs[:_FEW], maps=run.method.spec.needs_maps)
        maps = tuple(_random_like(each, size) for each in few.maps) if few.maps is not None else None
        teacher = TeacherBatch(_random_like(few.feature, size), _random_like(few.logits, size), maps)
    labels = run.dataset.train.labels[:size].to(run.device)
    return Batch(torch.arange(size, device=run.device), 0, inputs, labels, teacher)


def _random_student_outputs(run: DistillationRun, inputs: Tensor) -> tuple[Tensor, Tensor, tuple[Tensor, ...] | None]:
    """Return random feature, logits and maps with the student's shapes, as leaves with gradients."""
    with torch.no_grad():
        few = forward_pass(copy.deepcopy(run.student).eval(), inputs[:_FEW], maps=run.method.spec.needs_maps)
    size = len(inputs)
    random_maps = tuple(_random_like(each, size).requires_grad_() for each in few[2]) if few[2] is not None else None
    return _random_like(few[0], size).requires_grad_(), _random_like(few[1], size).requires_grad_(), random_maps


def _random_like(few: Tensor, size: int) -> Tensor:
    random = torch.randn(size, *few.shape[1:], generator=generator_from(0))
    return random.to(few.device)
