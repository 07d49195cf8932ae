"""Joint training of several similar trials: shared memory, one packed network, and one step for all trials."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from trainables.batches.images import Batch
from trainables.losses.parts import LossParts
from trainables.models.compute import arithmetic, forward_pass
from trainables.packing.adapter import PackedAdapterGradients
from trainables.packing.memory import Layout, Sgd
from trainables.packing.network import PackedNetwork
from trainables.run.run import DistillationRun
from trainables.steps.closed_form import ClosedForm
from trainables.steps.loss_log import join_parts
from trainables.steps.sgd import Trainer, tensors_under
from trainables.teacher_outputs.batch import TeacherBatch

# Config fields that all trials of a pack share. All other fields may differ.
SHARED_FIELDS: Final = (
    "method", "dataset", "student", "teacher", "batch_size", "precision", "adapter", "adapter_kind",
    "detach_adapter_target", "distance", "gap_control", "augmentation", "teacher_recipe", "teacher_epochs",
    "teacher_digest", "teacher_seed", "split_seed",
)  # fmt: skip
_STUDENT: Final = "student."
_ADAPTER: Final = "adapter."
_BATCHES_AT_ONCE: Final = 16


class PackedStep:
    """Training step of K packed trials.

    If the method has gradients in closed form, the adapters are packed as well. Otherwise the losses are
    computed trial by trial. Adapters and other trainable modules besides the student then make separate steps.

    Weights and momenta of the packed modules move into the pack's memory. `DistillationRun.own_its_memory` moves
    them out again.

    Args:
        runs: trials that agree in all `SHARED_FIELDS`.
    """

    def __init__(self, runs: Sequence[DistillationRun]) -> None:
        self._runs = runs
        first = runs[0]
        self._closed_form = first.method.gradients(_values(runs))
        inside = ("student", "adapter") if self._closed_form is not None else ("student",)
        self._inside = [{who: run.trainers[who] for who in inside if who in run.trainers} for run in runs]
        self._outside = [each for run in runs for who, each in run.trainers.items() if who not in inside]
        self._layout = Layout([_parameters(trainers) for trainers in self._inside])
        like = first.student.head.weight.detach()
        parameters, momenta, gradients = (like.new_zeros(self._layout.numel) for _ in range(3))
        self._memory = parameters, momenta
        self._sgd = Sgd(parameters, momenta, gradients)
        for number in range(len(runs)):
            self._move_in(number)
        # Leaves of the graph are views of this memory; a backward pass stores gradients in their `grad`.
        whole = self._layout.end_to_end(parameters)
        leaves = {name: each.requires_grad_() for name, each in tensors_under(_STUDENT, whole).items()}
        self._leaves = list(leaves.values())
        self._student_gradients = gradients[: sum(each.numel() for each in self._leaves)]
        self._network = PackedNetwork([run.student for run in runs], leaves)
        self._adapter = None
        if first.adapter is not None and self._closed_form is not None:
            self._adapter = PackedAdapterGradients(
                first.adapter.kind,
                tensors_under(_ADAPTER, self._layout.side_by_side(parameters)),
                tensors_under(_ADAPTER, self._layout.side_by_side(gradients)),
                first.adapter.head_weight if first.adapter.kind == "feature" else None,
            )

    def train_epoch(self) -> tuple[list[str], Tensor, list[int]]:
        """Train the next epoch of every trial; epoch numbers may differ between trials.

        Returns:
            Loss part names, values (batches, K, parts) in float64, and batch sizes.
        """
        runs = self._runs
        self._network.model.train()
        for run in runs:
            run.begin_drawing()
            for trainer in run.trainers.values():
                trainer.module.train()
                trainer.begin_epoch(run.epoch)
        rates = {name: self._spread(name) for name in ("rate", "momentum", "weight_decay")}
        log = _PackLog(self._closed_form)
        for batches in _batches(runs):
            self._train_batch(batches, log)
            self._sgd.step(**rates)
        return *log.join(), log.sizes

    @torch.no_grad()
    def logits(self, images: Iterator[Tensor]) -> Tensor:
        """Return the student logits (K, N, C) for images given in batches (B, C, H, W), in eval mode."""
        self._network.model.eval()
        return torch.cat([self._network.model(each) for each in images], dim=1)

    def _move_in(self, number: int) -> None:
        parameters, momenta = (self._layout.own(memory, number) for memory in self._memory)
        for who, trainer in self._inside[number].items():
            trainer.move(tensors_under(f"{who}.", parameters), tensors_under(f"{who}.", momenta))

    def _spread(self, attribute: str) -> float | Tensor:
        def value(name: str, trial: int) -> float:
            number: float = getattr(self._inside[trial][name.partition(".")[0]], attribute)
            return number

        return self._layout.spread(value, self._memory[0])

    def _train_batch(self, batches: Sequence[Batch], log: "_PackLog") -> None:
        """Compute the gradients of all trials, where trial k uses the k-th batch."""
        first = self._runs[0]
        images, labels = _images(batches), _side_by_side([batch.labels for batch in batches])
        teacher = _teacher(self._runs, batches) if first.method.asks_frozen_teacher else None
        self._network.begin_batch()
        with arithmetic(first.config.precision, first.device):
            feature, logits, maps = forward_pass(self._network.model, images, maps=first.method.spec.needs_maps)
        for leaf in self._leaves:
            leaf.grad = None
        if self._closed_form is not None and teacher is not None:
            self._backward_by_formula(logits, teacher, labels, log)
        else:
            self._backward(feature, logits, teacher, batches, log, maps or ())
        gradients = [leaf.grad for leaf in self._leaves]
        # Autograd keeps the memory order of a leaf for the gradient, so gradients can be copied without reordering.
        flat = [each.as_strided((each.numel(),), (1,)) for each in gradients if each is not None]
        torch.cat(flat, out=self._student_gradients)

    def _backward_by_formula(
        self, logits: Tensor, teacher: Sequence[TeacherBatch], labels: Tensor, log: "_PackLog"
    ) -> None:
        assert self._closed_form is not None
        taught_by = _side_by_side([each.logits for each in teacher])
        if self._adapter is not None:
            taught_by = self._adapter.forward(_side_by_side([each.feature for each in teacher]), taught_by)
        gradients = self._closed_form(logits, taught_by, labels)
        logits.backward(gradients.student)
        if self._adapter is not None:
            assert gradients.taught_by is not None
            self._adapter.backward(gradients.taught_by)
        log.add_later(gradients.log_p, labels)

    def _backward(
        self,
        feature: Tensor,
        logits: Tensor,
        teacher: Sequence[TeacherBatch] | None,
        batches: Sequence[Batch],
        log: "_PackLog",
        maps: tuple[Tensor, ...],
    ) -> None:
        # Channels are ordered by trial, in the feature as well as in the maps.
        features, *stages = (each.unflatten(1, (len(self._runs), -1)).unbind(1) for each in (feature, *maps))
        parts = []
        for k, (run, batch) in enumerate(zip(self._runs, batches, strict=True)):
            own = teacher[k] if teacher is not None else None
            parts.append(run.losses(features[k], logits[k], own, batch, tuple(each[k] for each in stages) or None))
        for trainer in self._outside:
            trainer.forget_gradients()
        torch.stack([each.total for each in parts]).sum().backward()
        for trainer in self._outside:
            trainer.step()
        log.add([each.detach() for each in parts], len(batches[0].labels))


class _PackLog:
    """Losses of all trials over an epoch; see `LossLog`."""

    def __init__(self, closed_form: ClosedForm | None) -> None:
        self._closed_form = closed_form
        self._parts: list[LossParts] = []
        self._later: list[tuple[Tensor, Tensor]] = []
        self.sizes: list[int] = []

    def add(self, parts: Sequence[LossParts], size: int) -> None:
        """Add the losses of the next batch, one entry per trial."""
        columns = [None if column[0] is None else torch.stack(column)[None] for column in zip(*parts, strict=True)]
        assert columns[0] is not None
        self._parts.append(LossParts(columns[0], *columns[1:]))
        self.sizes.append(size)

    def add_later(self, log_p: Tensor, labels: Tensor) -> None:
        """Add the next batch, given log_p (K, 4, C, B) and labels (K, B); losses are computed later."""
        if self._later and self._later[-1][1].shape != labels.shape:
            self._compute()
        self._later.append((log_p, labels))
        self.sizes.append(labels.shape[1])
        if len(self._later) == _BATCHES_AT_ONCE:
            self._compute()

    def join(self) -> tuple[list[str], Tensor]:
        """Return the loss part names and values (batches, K, parts)."""
        if self._later:
            self._compute()
        return join_parts(self._parts)

    def _compute(self) -> None:
        assert self._closed_form is not None
        log_p, labels = (torch.stack(column) for column in zip(*self._later, strict=True))
        self._parts.append(self._closed_form.parts(log_p, labels))
        self._later = []


def _parameters(trainers: Mapping[str, Trainer]) -> dict[str, Tensor]:
    return {f"{who}.{name}": each for who, trainer in trainers.items() for name, each in trainer.parameters.items()}


def _values(runs: Sequence[DistillationRun]) -> dict[str, Any]:
    """Return the fields used by the losses, each as one value for all trials or as a tensor (K,)."""
    values = runs[0].config.model_dump()
    if runs[0].method.closed_form is None:
        return values
    for name in runs[0].method.loss_fields - set(SHARED_FIELDS):
        numbers = [getattr(run.config, name) for run in runs]
        values[name] = torch.tensor(numbers, dtype=torch.float64, device=runs[0].device)
    return values


def _batches(runs: Sequence[DistillationRun]) -> Iterator[list[Batch]]:
    """Yield one batch per trial until the epoch ends; trials with the same data order share the same `Batch`."""
    streams: dict[tuple[object, ...], Iterator[Batch]] = {}
    keys = []
    for run in runs:
        source = run.stored_outputs.source if run.stored_outputs is not None else None
        keys.append((*run.batches.order(run.epoch), id(source)))
        if keys[-1] not in streams:
            streams[keys[-1]] = run.batches.of_epoch(run.epoch, run.stored_outputs)
    for batches in zip(*streams.values(), strict=True):
        of_key = dict(zip(streams, batches, strict=True))
        yield [of_key[key] for key in keys]


def _are_one(batches: Sequence[Batch]) -> bool:
    return all(batch is batches[0] for batch in batches)


def _images(batches: Sequence[Batch]) -> Tensor:
    """Return (B, C, H, W) if all trials use the same batch, otherwise (B, K · C, H, W)."""
    return batches[0].inputs if _are_one(batches) else torch.cat([batch.inputs for batch in batches], dim=1)


def _side_by_side(tensors: Sequence[Tensor]) -> Tensor:
    """Return (K, ...), without a copy if all tensors are the same object."""
    first = tensors[0]
    if all(each is first for each in tensors):
        return first.expand(len(tensors), *first.shape)
    return torch.stack(list(tensors))


def _teacher(runs: Sequence[DistillationRun], batches: Sequence[Batch]) -> list[TeacherBatch]:
    """Return the teacher outputs of every trial, stored or computed once per distinct batch."""
    answers: dict[int, TeacherBatch] = {}
    for run, batch in zip(runs, batches, strict=True):
        if id(batch) not in answers:
            answers[id(batch)] = batch.teacher if batch.teacher is not None else _ask(run, batch)
    return [answers[id(batch)] for batch in batches]


def _ask(run: DistillationRun, batch: Batch) -> TeacherBatch:
    assert run.teacher_outputs is not None
    with arithmetic(run.config.precision, run.device):  # a live teacher computes in the student's precision
        return run.teacher_outputs.train_batch(batch.indices, batch.slot, batch.inputs)
