"""A whole trial: student, adapter, their optimisers and the epoch, trained and evaluated epoch by epoch.

An epoch is a function of the state before it and of the config: its batch order, its views and any random
number that a layer draws come from seeds and the epoch's number, and a learning rate from the epoch's number.
So the state to keep is the weights, the momenta and the number of finished epochs, and a resumed trial
equals, to the bit on CPU, one that never stopped.
"""

import json
import math
import resource
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from trainables.adapter import TeacherAdapter
from trainables.compute import arithmetic, feature_and_logits, place
from trainables.data.dataset import Dataset, Split
from trainables.data.views import (
    Normaliser,
    ViewedImages,
    batch_order,
    num_slots,
    slot_of_epoch,
    view_table,
    views_of_slots,
)
from trainables.evaluation import validation_measures
from trainables.methods import METHODS
from trainables.methods.method import LossParts, StepOutputs
from trainables.models import DistillationModel, build_model
from trainables.optimisation import Trainer, count_parameters, tensors_under
from trainables.randomness import seeded
from trainables.teacher_outputs import LiveTeacherOutputs, TeacherBatch, TeacherOutputs
from trainables.trial import TrialConfig, derive_seed

if TYPE_CHECKING:
    from trainables.teacher import FrozenTeacher

_EVALUATION_BATCH = 512
_MEASURE_OF_PART = {
    "total": "train/loss",
    "ce": "train/loss_ce",
    "kd": "train/loss_kd",
    "adapter": "train/loss_adapter",
}


class NonFiniteLossError(ValueError):
    """A loss, or a measure, became infinite or not a number; the trial cannot go on."""


class DistillationRun:
    """One trial in progress.

    Args:
        config: the trial.
        dataset: its dataset, split by `config.split_seed`. The test split is read by `evaluate_test` alone.
        teacher: the frozen teacher. A method that needs none is measured against it where it is given.
        device: where everything runs.
        teacher_outputs: where the teacher's outputs come from; the teacher itself, live, unless given.

    Raises:
        ValueError: if the method needs a teacher and there is none, or dataset or teacher do not fit the
            config.
    """

    def __init__(
        self,
        config: TrialConfig,
        dataset: Dataset,
        teacher: "FrozenTeacher | None",
        *,
        device: torch.device | str = "cpu",
        teacher_outputs: TeacherOutputs | None = None,
    ) -> None:
        self.config = config
        self.dataset = dataset
        self.device = torch.device(device)
        self.method = METHODS[config.method]
        self.epoch = 0
        self.training_seconds = 0.0
        _check_fit(config, dataset, teacher)
        self.teacher = place(teacher, self.device, config.precision) if teacher is not None else None
        self.teacher_outputs = teacher_outputs
        if teacher_outputs is None and self.teacher is not None:
            self.teacher_outputs = LiveTeacherOutputs(self.teacher)
        self._objective = self.method.objective(config.model_dump())
        self._build_networks()
        self._load_images()
        self._validation_teacher: TeacherBatch | None = None
        self._forwards_reported = 0

    def _build_networks(self) -> None:
        config, info = self.config, self.dataset.info
        with seeded(derive_seed("student", config.seed)):
            student = build_model(config.student, num_classes=info.num_classes, in_channels=info.channels)
        self.student: DistillationModel = place(student, self.device, config.precision)
        self.student_trainer = Trainer(
            self.student,
            learning_rate=config.student_learning_rate,
            momentum=config.student_momentum,
            weight_decay=config.student_weight_decay,
            schedule=config.student_schedule,
            epochs=config.epochs,
        )
        self.adapter: TeacherAdapter | None = None
        self.adapter_trainer: Trainer | None = None
        if self.method.has_adapter:
            self.adapter = self._build_adapter()
            self.adapter_trainer = Trainer(
                self.adapter,
                learning_rate=config.adapter_learning_rate,
                momentum=config.adapter_momentum,
                weight_decay=config.adapter_weight_decay,
                schedule=config.adapter_schedule,
                epochs=config.epochs,
            )

    def _build_adapter(self) -> TeacherAdapter:
        assert self.teacher is not None
        head = self.teacher.head
        with seeded(derive_seed("adapter", self.config.seed)):
            adapter = TeacherAdapter(
                head.in_features,
                head.out_features,
                self.config.adapter_width,
                kind=self.config.adapter_kind,
                init=self.config.adapter_init,
                head=head,
            )
        return adapter.to(self.device)

    def _load_images(self) -> None:
        config, dataset = self.config, self.dataset
        table = view_table(dataset.name, config.augmentation)
        self._slots = num_slots(len(table), config.epochs)
        views = views_of_slots(len(dataset.train), len(table), self._slots, seed=config.split_seed)
        self._views = views.to(self.device)
        self._images = ViewedImages(dataset.train.images.to(self.device), table)
        self._labels = dataset.train.labels.to(self.device)
        self._normalise = Normaliser(dataset.mean, dataset.std, self.device)

    @property
    def trainers(self) -> dict[str, Trainer]:
        """Whoever learns in this trial, by name: the student, and the adapter if there is one."""
        trainers = {"student": self.student_trainer}
        if self.adapter_trainer is not None:
            trainers["adapter"] = self.adapter_trainer
        return trainers

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.config.epochs

    def run_epoch(self) -> dict[str, float]:
        """Train one epoch and evaluate: every measure that the method has, costs included.

        `cost/seconds` is the wall time of both; `cost/examples_per_second` is of training alone;
        `cost/teacher_forwards` counts the samples that went through the teacher itself since the epoch
        before, those of the validation split too, which pass once in a trial (and once more after a resume).
        A method without an adapter has 0 adapter parameters.

        Raises:
            NonFiniteLossError: see `train_epoch`.
        """
        started = time.perf_counter()
        measures = self.train_epoch() | self.evaluate()
        modules = [trainer.module for trainer in self.trainers.values()]
        forwards = self.teacher_outputs.forwards if self.teacher_outputs is not None else 0
        measures |= {
            "cost/seconds": time.perf_counter() - started,
            "cost/examples_per_second": len(self.dataset.train) / self.training_seconds,
            "cost/teacher_forwards": float(forwards - self._forwards_reported),
            "cost/trainable_parameters": float(count_parameters(modules)),
            "cost/adapter_parameters": float(count_parameters(modules[1:])),
            "cost/peak_memory_bytes": float(_peak_memory(self.device)),
        }
        self._forwards_reported = forwards
        return measures

    def train_epoch(self) -> dict[str, float]:
        """Go once through the train split, the last batch holding what is left over.

        The losses are looked at once, when the epoch is over: asking after each batch would make a GPU wait.
        So a loss that is not finite is reported at the end of its epoch, with the first batch that had it.

        Returns:
            `train/*`: each part's mean over the samples, while the weights were changing; parts other than
            the total are before their weights.

        Raises:
            NonFiniteLossError: naming epoch, batch and the value of each part.
        """
        assert not self.finished, f"all {self.config.epochs} epochs are done"
        started = time.perf_counter()
        self.student.train()
        if self.adapter is not None:
            self.adapter.train()
        for trainer in self.trainers.values():
            trainer.begin_epoch(self.epoch)
        with seeded(derive_seed("epoch", self.config.seed, self.epoch), self.device):
            parts = [self._train_batch(*batch) for batch in self._batches()]
        losses = self._checked_losses(parts)
        self.epoch += 1
        self.training_seconds = time.perf_counter() - started
        return losses

    def _batches(self) -> Iterator[tuple[Tensor, int]]:
        config = self.config
        slot = slot_of_epoch(self.epoch, self._slots, data_seed=config.data_seed)
        order = batch_order(len(self._labels), data_seed=config.data_seed, epoch=self.epoch).to(self.device)
        for indices in order.split(config.batch_size):
            yield indices, slot

    def _train_batch(self, indices: Tensor, slot: int) -> LossParts:
        images = self._normalise(self._images.batch(indices, self._views[slot, indices]))
        return self.train_batch(images, self._labels[indices], indices=indices, slot=slot)

    def train_batch(self, images: Tensor, labels: Tensor, *, indices: Tensor, slot: int) -> LossParts:
        """One step of everybody who learns, on one batch of the train split.

        Args:
            images: (B, C, H, W) float32, normalised, in the views of the slot.
            labels: (B,) int64.
            indices: (B,) int64, these samples' rows in the train split, by which stored outputs are found.
            slot: which of each sample's views `images` shows.

        Returns:
            The losses before the step, without their graph.
        """
        teacher = adapted = None
        if self.method.needs_teacher:
            assert self.teacher_outputs is not None
            # Its own net runs as the student does; what others give comes as it is.
            live = isinstance(self.teacher_outputs, LiveTeacherOutputs)
            with arithmetic(self.config.precision if live else "fp32", self.device):
                teacher = self.teacher_outputs.train_batch(indices, slot, images)
        if self.adapter is not None:
            assert teacher is not None
            adapted = self.adapter(teacher.feature, teacher.logits)
        with arithmetic(self.config.precision, self.device):
            feature, logits = feature_and_logits(self.student, images)
        outputs = StepOutputs(
            student_feature=feature,
            student_logits=logits,
            teacher_feature=teacher.feature if teacher is not None else None,
            teacher_logits=teacher.logits if teacher is not None else None,
            adapted_logits=adapted,
        )
        parts = self._objective(outputs, labels)
        trainers = self.trainers.values()
        for trainer in trainers:
            trainer.forget_gradients()
        parts.total.backward()
        for trainer in trainers:
            trainer.optimizer.step()
        return parts.detach()

    def _checked_losses(self, batches: list[LossParts]) -> dict[str, float]:
        names = [name for name, part in batches[0]._asdict().items() if part is not None]
        columns = [torch.stack([getattr(parts, name) for parts in batches]) for name in names]
        values = torch.stack(columns, dim=1).double().cpu()  # (batches, parts); the epoch's one wait
        finite = values.isfinite().all(dim=1)
        if not finite.all():
            batch = int((~finite).nonzero()[0])
            shown = ", ".join(f"{name} {value:g}" for name, value in zip(names, values[batch].tolist(), strict=True))
            raise NonFiniteLossError(
                f"the loss is not finite in epoch {self.epoch + 1} of {self.config.epochs}, "
                f"batch {batch + 1} of {len(batches)}: {shown}. A lower learning rate usually helps."
            )
        sizes = torch.full((len(batches),), self.config.batch_size, dtype=torch.float64)
        sizes[-1] = len(self._labels) - sizes[:-1].sum()
        means = (values * sizes[:, None]).sum(dim=0) / len(self._labels)
        return {_MEASURE_OF_PART[name]: mean for name, mean in zip(names, means.tolist(), strict=True)}

    @torch.no_grad()
    def evaluate(self) -> dict[str, float]:
        """`val/*` on the validation split; which of them a method has, `validation_measures` says.

        Raises:
            NonFiniteLossError: naming the epoch and the measures, where the last step of an epoch spoilt the
                weights: its loss was computed before that step.
        """
        split = self.dataset.validation
        teacher = self._teacher_on_validation()
        adapted = None
        if self.adapter is not None:
            assert teacher is not None
            self.adapter.eval()
            adapted = self.adapter(teacher.feature, teacher.logits)
        measures = validation_measures(
            self._student_logits(split),
            split.labels.to(self.device),
            temperature=self.config.temperature,
            teacher_logits=teacher.logits if teacher is not None else None,
            adapted_logits=adapted,
        )
        wrong = ", ".join(f"{name} {value:g}" for name, value in measures.items() if not math.isfinite(value))
        if wrong:
            raise NonFiniteLossError(
                f"not finite after epoch {self.epoch} of {self.config.epochs}: {wrong}. "
                "A lower learning rate usually helps."
            )
        return measures

    @torch.no_grad()
    def evaluate_test(self) -> dict[str, float]:
        """`test/accuracy`: the one reader of the test split, for the final confirmation of a study."""
        split = self.dataset.test
        correct = self._student_logits(split).argmax(dim=1) == split.labels.to(self.device)
        return {"test/accuracy": float(correct.double().mean())}

    def _student_logits(self, split: Split) -> Tensor:
        self.student.eval()
        return torch.cat([self.student(images) for images in self._evaluation_batches(split)])

    def _evaluation_batches(self, split: Split) -> Iterator[Tensor]:
        for images in split.images.split(_EVALUATION_BATCH):
            yield self._normalise(images.to(self.device))

    def _teacher_on_validation(self) -> TeacherBatch | None:
        # They never change, so they are computed once a trial, and counted once.
        if self._validation_teacher is None and self.teacher_outputs is not None:
            split = self.dataset.validation
            rows = torch.arange(len(split), device=self.device).split(_EVALUATION_BATCH)
            batches = [
                self.teacher_outputs.validation(indices, images)
                for indices, images in zip(rows, self._evaluation_batches(split), strict=True)
            ]
            self._validation_teacher = TeacherBatch(*(torch.cat(column) for column in zip(*batches, strict=True)))
        return self._validation_teacher

    @property
    def identity(self) -> dict[str, str]:
        """What a saved state belongs to: the config with its seeds, the data, the teacher's weights."""
        return {
            "config": self.config.model_dump_json(),
            "dataset": self.dataset.digest,
            "teacher": self.teacher.digest if self.teacher is not None else "none",
        }

    def state_dict(self) -> dict[str, Any]:
        """The trial's state: `epoch` (finished ones), `identity`, `tensors` by name, which are not copies."""
        tensors = {
            f"{who}.{name}": tensor
            for who, trainer in self.trainers.items()
            for name, tensor in trainer.state_tensors().items()
        }
        return {"epoch": self.epoch, "identity": self.identity, "tensors": tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from a state of `state_dict`, of this very trial.

        Raises:
            ValueError: naming what differs, if the state is another trial's or lacks something; the run is
                then as it was.
        """
        for name, ours in self.identity.items():
            theirs = state["identity"].get(name)
            if theirs != ours:
                difference = _different_fields(theirs, ours) if name == "config" else f"{theirs} (here {ours})"
                raise ValueError(f"the state is of another trial: its {name} has {difference}")
        parts = {who: tensors_under(f"{who}.", state["tensors"]) for who in self.trainers}
        for who, trainer in self.trainers.items():
            trainer.check_state_tensors(parts[who])
        for who, trainer in self.trainers.items():
            trainer.load_state_tensors(parts[who])
        self.epoch = int(state["epoch"])


@contextmanager
def one_thread() -> Iterator[None]:
    """Within the block this process computes on one thread, which small nets need and equal bits too."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def use_one_thread() -> None:
    """Let this process compute on one thread, and by deterministic algorithms alone.

    For whoever starts the process of a trial: two processes of two threads each on two cores ran at 0.12 to
    0.5 of the speed of two of one thread.
    """
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    # PyTorch would also fill every fresh tensor, lest one be read unwritten: 12 to 18% of a step of CIFAR's nets.
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]


def _check_fit(config: TrialConfig, dataset: Dataset, teacher: "FrozenTeacher | None") -> None:
    if dataset.name != config.dataset:
        raise ValueError(f"the trial is of dataset {config.dataset!r} and was given {dataset.name!r}")
    if dataset.seed != config.split_seed:
        raise ValueError(f"the trial has split_seed {config.split_seed}, the dataset was split by {dataset.seed}")
    if teacher is None:
        if METHODS[config.method].needs_teacher:
            raise ValueError(f"method {config.method!r} needs a teacher: pass one (see ensure_teacher, load_teacher)")
    elif teacher.head.out_features != dataset.num_classes:
        raise ValueError(
            f"the teacher knows {teacher.head.out_features} classes, dataset {dataset.name!r} has {dataset.num_classes}"
        )


def _different_fields(theirs: str, ours: str) -> str:
    found, here = json.loads(theirs), json.loads(ours)
    names = [name for name in sorted(found | here) if found.get(name) != here.get(name)]
    return ", ".join(f"{name} {found.get(name)!r} (here {here.get(name)!r})" for name in names)


def _peak_memory(device: torch.device) -> int:
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # Linux counts in KiB
