"""Joint training of several similar trials: shared memory, one packed network, and one step for all trials."""

from collections.abc import Iterator, Sequence
from typing import Any, Final

import torch
from torch import Tensor

from trainables.batches.images import Batch
from trainables.losses.parts import LossParts
from trainables.models.compute import arithmetic, forward_pass
from trainables.packing.network import PackedNetwork
from trainables.packing.optimiser import PackedOptimiser
from trainables.run.run import DistillationRun
from trainables.steps.adapter import TeacherAdapter
from trainables.steps.adapter_formulas import AdapterFormulas, AdapterStep, PackedLayers
from trainables.steps.loss_log import EpochLosses, LossLog
from trainables.steps.step import AutogradStep, BatchLosses, ClosedFormStep, FormulaInputs, TrainingStep
from trainables.teacher_outputs.batch import TeacherBatch

# Config fields shared by all trials in a pack. All other fields may differ.
SHARED_FIELDS: Final = (
    "method", "dataset", "student", "teacher", "batch_size", "precision", "adapter", "adapter_kind",
    "adapter_count", "adapter_training", "adapter_dropout", "detach_adapter_target", "pesf_variant", "distance",
    "gap_control", "augmentation", "teacher_recipe", "teacher_epochs", "teacher_digest", "teacher_seed",
    "teacher_number", "split_seed", "split_number",
)  # fmt: skip
_STUDENT: Final = "student"
_ADAPTER: Final = "adapter"


class PackedStep:
    """K packed trials in a training step: one network, one optimiser, and separate objectives.

    If the method has gradients in closed form, the adapters are packed as well. Otherwise the losses are
    computed trial by trial. Adapters and trainable modules other than the student then make separate steps.

    The packed modules' weights and momenta move into the pack's memory. `DistillationRun.own_its_memory` moves them out
    again.

    Args:
        runs: trials with equal values of all `SHARED_FIELDS`.

    Attributes:
        step: implementation of the training step.
        closed_form: formulas for all objectives; None if autograd computes the gradients.
        adapter: layers of all adapters; None if there are none or the adapters are not packed.
    """

    def __init__(self, runs: Sequence[DistillationRun]) -> None:
        self._runs = runs
        first = runs[0]
        self.closed_form = first.method.gradients(_values(runs)) if first.config.has_plain_adapter else None
        inside = (_STUDENT, _ADAPTER) if self.closed_form is not None else (_STUDENT,)
        trainers = [{name: run.trainers[name] for name in inside if name in run.trainers} for run in runs]
        self._optimiser = PackedOptimiser(trainers, first.student.head.weight.detach(), graph=_STUDENT)
        self._network = PackedNetwork([run.student for run in runs], self._optimiser.leaves)
        self.adapter: PackedLayers | None = None
        if first.adapter is not None and self.closed_form is not None:
            self.adapter = PackedLayers(self._optimiser.weights_of(_ADAPTER), self._optimiser.gradients_of(_ADAPTER))
        self.step = self._choose_step(inside)

    def _choose_step(self, inside: Sequence[str]) -> TrainingStep[Sequence[Batch]]:
        if self.closed_form is None:
            outside = [each for run in self._runs for name, each in run.trainers.items() if name not in inside]
            return AutogradStep([*outside, self._optimiser])
        adapter = None
        if self.adapter is not None:
            assert self._runs[0].adapter is not None
            assert isinstance(self._runs[0].adapter, TeacherAdapter)
            adapter = AdapterStep(AdapterFormulas(self._runs[0].adapter, self.adapter))
        return ClosedFormStep(self.closed_form, self._optimiser, adapter)

    def train_epoch(self) -> EpochLosses:
        """Train every trial's next epoch, and return the losses; epoch numbers may differ between trials."""
        runs = self._runs
        self._network.model.train()
        for run in runs:
            run.adapt_first()
            run.begin_drawing()
            for trainer in run.trainers.values():
                trainer.module.train()
                trainer.begin_epoch(run.epoch)
        self._optimiser.begin_epoch()
        log = LossLog(self.closed_form)
        for batches in _batches(runs):
            self.step.train_batch(self, batches, log)
        return log.read()

    @torch.no_grad()
    def logits(self, images: Iterator[Tensor]) -> Tensor:
        """Return the student logits (K, N, C) for images given in batches (B, C, H, W), in eval mode."""
        self._network.model.eval()
        return torch.cat([self._network.model(each) for each in images], dim=1)

    def formula_inputs(self, batches: Sequence[Batch]) -> FormulaInputs:
        """Pass batches through the students and the teacher, where trial k uses the k-th batch."""
        teacher = _frozen_outputs(self._runs, batches)
        _, logits, _ = self._forward(batches)
        feature = None
        if self.adapter is not None:
            feature = _side_by_side([each.feature for each in teacher])
        target = _side_by_side([each.logits for each in teacher])
        return FormulaInputs(logits, feature, target, _side_by_side([batch.labels for batch in batches]))

    def batch_losses(self, batches: Sequence[Batch]) -> BatchLosses:
        """Compute all trials' losses with their graph; trial k uses the k-th batch."""
        count, asks = len(self._runs), self._runs[0].method.asks_frozen_teacher
        teacher = _frozen_outputs(self._runs, batches) if asks else [None] * count
        feature, logits, maps = self._forward(batches)
        # Channels are ordered by trial, in the feature as well as in the maps.
        features, *stages = (each.unflatten(1, (count, -1)).unbind(1) for each in (feature, *(maps or ())))
        parts = [
            run.losses(features[k], logits[k], teacher[k], batch, tuple(each[k] for each in stages) or None)
            for k, (run, batch) in enumerate(zip(self._runs, batches, strict=True))
        ]
        return BatchLosses(LossParts.side_by_side(parts), len(batches[0].labels))

    def _forward(self, batches: Sequence[Batch]) -> tuple[Tensor, Tensor, tuple[Tensor, ...] | None]:
        first = self._runs[0]
        self._network.begin_batch()
        with arithmetic(first.config.precision, first.device):
            return forward_pass(self._network.model, _images(batches), maps=first.method.spec.needs_maps)


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


def _are_one(items: Sequence[object]) -> bool:
    return all(each is items[0] for each in items)


def _images(batches: Sequence[Batch]) -> Tensor:
    """Return (B, C, H, W) if all trials use the same batch, otherwise (B, K · C, H, W)."""
    return batches[0].inputs if _are_one(batches) else torch.cat([batch.inputs for batch in batches], dim=1)


def _side_by_side(tensors: Sequence[Tensor]) -> Tensor:
    """Return (K, ...), without a copy if all tensors are the same object."""
    if _are_one(tensors):
        return tensors[0].expand(len(tensors), *tensors[0].shape)
    return torch.stack(list(tensors))


def _frozen_outputs(runs: Sequence[DistillationRun], batches: Sequence[Batch]) -> list[TeacherBatch]:
    """Return every trial's teacher outputs, stored or computed once per distinct batch."""
    outputs: dict[int, TeacherBatch] = {}
    for run, batch in zip(runs, batches, strict=True):
        if id(batch) not in outputs:
            found = run.frozen_outputs(batch)
            assert found is not None
            outputs[id(batch)] = found
    return [outputs[id(batch)] for batch in batches]
