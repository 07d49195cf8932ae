"""One distillation trial: networks, optimisers, training epochs, evaluation and state.

An epoch depends only on the state before it and on the config. Batch order, views and the random numbers drawn by
layers are determined by the seeds and the epoch number, and the learning rate by the epoch number. The state to save
is therefore the weights, the optimiser state and the number of finished epochs. On CPU, a resumed trial equals an
uninterrupted one bit for bit.
"""

import math
import time
from collections.abc import Iterator, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainables.batches.images import Batch, BatchSource, EpochBatches
from trainables.data.dataset import Dataset, Split
from trainables.losses.parts import LossParts, StepOutputs
from trainables.losses.sharpness import sharpness
from trainables.methods.method import Method
from trainables.methods.registry import METHODS
from trainables.models import DistillationModel
from trainables.models.compute import arithmetic, forward_pass, place
from trainables.models.ensemble import MeanProbability
from trainables.process.memory import forget_peak_memory
from trainables.process.randomness import seeded
from trainables.run.class_distances import measure_class_distances
from trainables.run.evaluation import (
    Answers,
    Calibration,
    answers_of,
    calibration_of,
    gaps_by_class,
    measures_on_test,
    validation_measures,
)
from trainables.run.identity import check_fit, check_identity, check_outputs
from trainables.run.learners import (
    adapter_trainer,
    build_adapter,
    build_companion,
    build_parts,
    build_student,
    student_trainer,
)
from trainables.run.predictions import SplitPredictor
from trainables.run.workers import Workers, share_norms
from trainables.spec.batch_sizes import largest_batch
from trainables.spec.measures import ADAPTER_SHIFT, CALIBRATION
from trainables.spec.methods import AdapterSettings
from trainables.spec.modality import is_text
from trainables.spec.trial import TrialConfig, derive_seed
from trainables.steps.adapter import AdapterAverage, TeacherAdapter
from trainables.steps.loss_log import LossLog, NonFiniteLossError
from trainables.steps.sgd import Trainer, tensors_under
from trainables.steps.step import BatchLosses, FormulaInputs, TrainingStep, choose_step
from trainables.teacher_outputs.batch import TeacherBatch, TeacherOutputs
from trainables.teacher_outputs.live import LiveTeacherOutputs

if TYPE_CHECKING:
    from trainables.teacher_outputs.frozen import FrozenTeacher


class DistillationRun:
    """One trial in progress.

    Args:
        config: trial config.
        dataset: trial dataset, split by `config.split_seed`. Only `evaluate_test` evaluates on the test split.
        teacher: the frozen teacher. Even methods without a teacher are measured against it, if given.
        device: device for all networks and batches.
        teacher_outputs: source of teacher outputs. Defaults to forward passes through `teacher`.
        method: replaces the method named in the config. Used to train a teacher for a specific method.
        reads_test: whether the last epoch also reports `test/accuracy`.
        workers: group of processes training this trial together, each with a `DistillationRun`; see
            `trainables.run.workers`. None if this process trains alone.

    Attributes:
        step: implementation of the training step.
        closed_form: formulas for the objective; None if autograd computes the gradients.
        predictor: predictions of the trial's networks for whole splits.
        calibration: data for the reliability diagrams, filled when the last epoch is evaluated; see
            `trainables.spec.measures`.
        class_distances: (C, C), distances between the classes if used by the method; otherwise None.
        answers: correct samples and sums per class, if the trial reads the test split; see `trainables.run.evaluation`.

    Raises:
        ValueError: if the method needs a teacher and none is given, or if the dataset, the teacher or the teacher
            outputs do not fit the config.
    """

    def __init__(
        self,
        config: TrialConfig,
        dataset: Dataset,
        teacher: "FrozenTeacher | None",
        *,
        device: torch.device | str = "cpu",
        teacher_outputs: TeacherOutputs | None = None,
        method: Method | None = None,
        reads_test: bool = False,
        workers: Workers | None = None,
    ) -> None:
        self.config = config
        self.workers = workers
        self.reads_test = reads_test
        self.dataset = dataset
        self.device = torch.device(device)
        self.method = method if method is not None else METHODS[config.method]
        self.epoch = 0
        self.training_seconds = 0.0
        self.calibration: Calibration = {}
        self.answers: Answers = {}
        check_fit(config, dataset, teacher)
        forget_peak_memory(self.device)
        self.teacher = place(teacher, self.device, config.precision) if teacher is not None else None
        self._generator: torch.Generator | None = None
        self.teacher_outputs = teacher_outputs
        if teacher_outputs is None and self.teacher is not None:
            self.teacher_outputs = LiveTeacherOutputs(self.teacher, maps=self.method.spec.needs_maps)
        check_outputs(config, self.teacher_outputs)
        values = config.model_dump()
        self.objective = self.method.objective(values)
        # The closed form needs the whole-batch gradient; a worker computes only a share.
        formulas = workers is None and config.has_plain_adapter
        self.closed_form = self.method.gradients(values) if formulas else None
        self.batches = build_batches(config, dataset, self.device)
        self.class_distances = self._class_distances() if self.method.spec.needs_class_distances else None
        self._build_networks()
        self.step = self._choose_step()
        self.predictor = SplitPredictor(self.student, dataset, self.batches, workers)
        self._forwards_reported = 0
        self._initial_sharpness: Tensor | None = None

    def _class_distances(self) -> Tensor:
        """Measure the distances between the classes on the teacher's logits for slot 0, stored or computed now."""

        def logits_of(rows: Tensor) -> Tensor:
            rows = rows.to(self.device)
            if self.stored_outputs is not None:  # needs no images
                return self.stored_outputs.train_batch(rows, 0, rows.new_empty(0)).logits
            outputs = self.frozen_outputs(self.batches.batch(rows, 0))
            assert outputs is not None
            return outputs.logits

        return measure_class_distances(self.dataset.train.labels, self.dataset.num_classes, logits_of)

    def _build_networks(self) -> None:
        config = self.config
        self.student: DistillationModel = build_student(config, self.dataset, self.device, self.teacher)
        self.student_trainer = student_trainer(config, self.student, len(self.batches))
        self.adapter: TeacherAdapter | AdapterAverage | None = None
        self.adapter_trainer: Trainer | None = None
        if config.method_spec.has_adapter:
            assert self.teacher is not None
            self.adapter = build_adapter(config, self.teacher.head, self.device)
            self.adapter_trainer = adapter_trainer(config, self.adapter, len(self.batches))
        self.parts: nn.Module | None = None
        self.parts_trainer: Trainer | None = None
        if self.method.parts is not None:
            self.parts = build_parts(config, self.method, self.student, self.teacher, self.dataset, self.batches)
            assert self.parts is not None
            self.parts_trainer = student_trainer(config, self.parts, len(self.batches))
        self.companion = build_companion(
            config, self.method, self.dataset, self.teacher, self.device, len(self.batches)
        )
        if self.workers is not None:
            for network in (self.student, *([self.companion.model] if self.companion is not None else [])):
                share_norms(network, self.workers)

    def _choose_step(self) -> TrainingStep[Batch]:
        trainers, workers = self.trainers, self.workers
        return choose_step(
            self.closed_form,
            trainers,
            batch_size=largest_batch(len(self.dataset.train), self.config.batch_size),
            num_classes=self.dataset.info.num_classes,
            device=self.device,
            all_reduce=partial(workers.add_gradients, trainers) if workers is not None else None,
        )

    @property
    def trainers(self) -> dict[str, Trainer]:
        """Trainers by name: the student, and where present the adapter, the method's parts, the peer or the teacher."""
        trainers = {"student": self.student_trainer, "adapter": self.adapter_trainer, "method": self.parts_trainer}
        if self.companion is not None:
            trainers[self.companion.name] = self.companion.trainer
        return {name: trainer for name, trainer in trainers.items() if trainer is not None}

    @property
    def trainable(self) -> dict[str, nn.Module]:
        """Modules that are trained, by the names of `trainers`; an adapter may be frozen."""
        modules = {name: trainer.module for name, trainer in self.trainers.items()}
        return {name: each for name, each in modules.items() if any(p.requires_grad for p in each.parameters())}

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.config.epochs

    def take_forwards(self) -> int:
        """Return the number of samples passed through the teacher since the last call, over all workers.

        Validation samples pass through a frozen teacher once per trial, and once more after a resume. With a trainable
        teacher, all samples pass through it every epoch.
        """
        forwards = self.teacher_outputs.forwards if self.teacher_outputs is not None else 0
        if self.companion is not None and self.method.spec.trains_teacher:
            forwards += self.companion.forwards
        if self.workers is not None:
            forwards = self.workers.total(forwards, self.device)
        taken, self._forwards_reported = forwards - self._forwards_reported, forwards
        return taken

    def train_epoch(self) -> dict[str, float]:
        """Train on every train sample once.

        The last batch holds the remaining samples; see `trainables.spec.batch_sizes`. Losses are checked once, at the
        end of the epoch, because reading them after each batch would make a GPU wait. A non-finite loss is therefore
        reported at the epoch's end, together with the first batch where it occurred.

        Returns:
            `train/*`: mean of each loss part over the samples, computed while the weights were changing. Parts other
            than the total are unweighted.

        Raises:
            NonFiniteLossError: with the epoch, the batch and each part's value.
        """
        assert not self.finished, f"all {self.config.epochs} epochs are done"
        started = time.perf_counter()
        self.adapt_first()
        for trainer in self.trainers.values():
            trainer.module.train()
            trainer.begin_epoch(self.epoch)
        self.begin_drawing()
        log = LossLog(self.closed_form)
        own = (self.workers.rank,) if self.workers is not None and self.workers.rank else ()
        with seeded(derive_seed("epoch", self.config.seed, self.epoch, *own), self.device):
            for batch in self._batches_of_epoch():
                self.train_batch(batch, log)
        losses = log.read().means(self.epoch + 1, self.config.epochs)
        self.epoch += 1
        self.training_seconds = time.perf_counter() - started
        return losses

    def adapt_first(self) -> None:
        """Before the first epoch, take the adapter of a whole trial with another student, if set in the config.

        The other trial differs only in the seed, and trains adapter and student together. This trial's adapter is
        therefore friendly to students of the architecture, and does not react to this trial's student.
        """
        if self.adapter is None or self.epoch or self.config.settings_of(AdapterSettings).adapter_training != "first":
            return
        other = {"adapter_training": "joint", "seed": derive_seed("adapted first", self.config.seed)}
        config = TrialConfig(**{**self.config.model_dump(), **other})
        first = DistillationRun(
            config,
            self.dataset,
            self.teacher,
            device=self.device,
            teacher_outputs=self.teacher_outputs,
            method=self.method,
            workers=self.workers,
        )
        while not first.finished:
            first.train_epoch()
        assert first.adapter is not None
        self.adapter.load_state_dict(first.adapter.state_dict())

    def _batches_of_epoch(self) -> Iterator[Batch]:
        if self.workers is None:
            return self.batches.of_epoch(self.epoch, self.stored_outputs)
        return self.batches.shares_of_epoch(self.epoch, self.stored_outputs, self.workers.rows)

    def begin_drawing(self) -> None:
        """Seed this epoch's loss computation by (seed, epoch) alone."""
        seed = derive_seed("losses", self.config.seed, self.epoch)
        self._generator = torch.Generator(self.device).manual_seed(seed)

    @property
    def stored_outputs(self) -> TeacherOutputs | None:
        """Stored teacher outputs to load with each batch, or None if they are not stored or the method needs none."""
        outputs = self.teacher_outputs
        return outputs if self.method.asks_frozen_teacher and outputs is not None and outputs.stored else None

    def train_batch(self, batch: Batch, log: LossLog) -> None:
        """Update all trainable modules on one batch.

        Args:
            batch: train mini-batch.
            log: receives the losses, computed before the update.
        """
        self.step.train_batch(self, batch, log)

    def formula_inputs(self, batch: Batch) -> FormulaInputs:
        """Pass a batch through the student and the frozen teacher; see `trainables.steps.step.Trials`."""
        teacher = self.frozen_outputs(batch)
        assert teacher is not None
        with arithmetic(self.config.precision, self.device):
            _, logits, _ = forward_pass(self.student, batch.inputs, maps=self.method.spec.needs_maps)
        return FormulaInputs(logits, teacher.feature, teacher.logits, batch.labels)

    def batch_losses(self, batch: Batch) -> BatchLosses:
        """Compute a batch's losses with their graph; workers compute the whole batch's losses."""
        teacher = self.frozen_outputs(batch)
        with arithmetic(self.config.precision, self.device):
            feature, logits, maps = forward_pass(self.student, batch.inputs, maps=self.method.spec.needs_maps)
        parts = self.losses(feature, logits, teacher, batch, maps)
        return BatchLosses(parts, len(batch.labels if batch.whole is None else batch.whole[0]))

    def frozen_outputs(self, batch: Batch) -> TeacherBatch | None:
        """Return the frozen teacher's outputs for a batch, stored or computed now; None if the method needs none."""
        if batch.teacher is not None or not self.method.asks_frozen_teacher:
            return batch.teacher
        assert self.teacher_outputs is not None
        with arithmetic(self.config.precision, self.device):  # a live teacher computes in the student's precision
            return self.teacher_outputs.train_batch(batch.indices, batch.slot, batch.inputs)

    def losses(
        self,
        feature: Tensor,
        logits: Tensor,
        teacher: TeacherBatch | None,
        batch: Batch,
        maps: tuple[Tensor, ...] | None = None,
    ) -> LossParts:
        """Compute a batch's losses with their graph.

        Args:
            feature: (B, D), student feature.
            logits: (B, C), student logits.
            teacher: teacher outputs for the batch.
            batch: train mini-batch.
            maps: the student's feature maps, if the method needs them.
        """
        adapted, companion = None, self._companion_logits(batch.inputs)
        if self.adapter is not None:
            assert teacher is not None
            adapted = self.adapter(teacher.feature, teacher.logits)
        outputs = StepOutputs(
            student_feature=feature,
            student_logits=logits,
            teacher_feature=teacher.feature if teacher is not None else None,
            teacher_logits=teacher.logits if teacher is not None else None,
            adapted_logits=companion if self.method.spec.trains_teacher else adapted,
            peer_logits=companion if self.method.spec.peer is not None else None,
            parts=self.parts,
            indices=batch.indices,
            epoch=self.epoch,
            generator=self._generator,
            student_maps=maps,
            teacher_maps=teacher.maps if teacher is not None else None,
            epochs=self.config.epochs,
            class_distances=self.class_distances,
        )
        if self.workers is None or batch.whole is None:
            return self.objective(outputs, batch.labels)
        indices, labels = batch.whole
        return self.objective(self.workers.gather_outputs(outputs, indices), labels)

    def _companion_logits(self, inputs: Tensor) -> Tensor | None:
        if self.companion is None:
            return None
        with arithmetic(self.config.precision, self.device):
            return self.companion.logits(inputs)

    @torch.no_grad()
    def evaluate(self, student_logits: Tensor | None = None) -> dict[str, float]:
        """Compute `val/*` on the validation split; `validation_measures` defines the method's measures.

        Args:
            student_logits: (N, C), student logits for the split, if already computed.

        Raises:
            NonFiniteLossError: with the epoch and the measures, if the epoch's last step ruined the weights. The
                training loss does not show this, because it is computed before the step.
        """
        split, frozen, adapted, peer = self.dataset.validation, None, None, None
        shift: dict[str, float] = {}
        members: Sequence[Tensor] = ()
        # Without a teacher, the peer takes the teacher's place in the measures.
        if self.teacher_outputs is not None and (self.method.spec.peer is None or self.method.spec.needs_teacher):
            teacher = self.predictor.of_frozen_teacher(self.teacher_outputs)
            frozen = teacher.logits
            if self.teacher is not None and isinstance(self.teacher.head, MeanProbability):
                members = self.teacher.head.by_member(teacher.feature).unbind(1)
            if self.adapter is not None:
                self.adapter.eval()
                adapted = self.adapter(teacher.feature, frozen)
                shift = {ADAPTER_SHIFT: self._adapter_shift(teacher, adapted)}
        if self.companion is not None:
            companion = self.predictor.of(self.companion.evaluated(), split)
            adapted = companion if self.method.spec.trains_teacher else adapted
            peer = companion if self.method.spec.peer is not None else None
        student = self.predictor.of_student(split) if student_logits is None else student_logits
        labels = split.labels.to(self.device)
        measures = validation_measures(
            student,
            labels,
            temperature=self.config.temperature,
            teacher_logits=frozen,
            adapted_logits=adapted,
            peer_logits=peer,
            member_logits=members,
            metrics=self.dataset.info.metrics,
        )
        measures |= shift
        wrong = ", ".join(f"{name} {value:g}" for name, value in measures.items() if not math.isfinite(value))
        if wrong:
            raise NonFiniteLossError(
                f"not finite after epoch {self.epoch} of {self.config.epochs}: {wrong}. "
                "A lower learning rate usually helps."
            )
        if self.finished:
            standing = peer if frozen is None else frozen
            self.calibration |= calibration_of(
                labels, dict(zip(CALIBRATION[:3], (student, standing, adapted), strict=True))
            )
            if self.reads_test and standing is not None:
                self.answers |= gaps_by_class(standing if adapted is None else adapted, student, labels)
        return measures

    def _adapter_shift(self, teacher: TeacherBatch, adapted: Tensor) -> float:
        """Compute how far training has moved the sharpness of the adapted logits (N, C), in nats."""
        if self._initial_sharpness is None:  # the seed gives the initial weights again, also after a resume
            assert self.teacher is not None
            assert self.adapter is not None
            initial = build_adapter(self.config, self.teacher.head, self.device).to(teacher.logits.dtype).eval()
            self._initial_sharpness = sharpness(initial(teacher.feature, teacher.logits).double())
        return float((sharpness(adapted.double()) - self._initial_sharpness).abs().mean())

    @torch.no_grad()
    def evaluate_test(self) -> dict[str, float]:
        """Compute `test/accuracy` and the dataset's other metrics, for a study's final confirmation.

        No other method evaluates on the test split, and `data_facts` reads the labels only afterwards.
        """
        split = self.dataset.test
        logits, labels = self.predictor.of_student(split), split.labels.to(self.device)
        self.calibration |= calibration_of(labels, {CALIBRATION[-1]: logits})
        self.answers |= answers_of(logits, labels)
        return measures_on_test(logits, labels, self.dataset.info.metrics)

    def test_at_the_end(self) -> dict[str, float]:
        """Return `evaluate_test()` after the last epoch if `reads_test` is set, otherwise an empty dictionary."""
        return self.evaluate_test() if self.reads_test and self.finished else {}

    def data_facts(self) -> dict[str, float]:
        """Return `DATA_FACTS` for the validation split and, if the trial has read it, the test split."""
        splits = {"val": self.dataset.validation}
        if self.reads_test and self.finished:
            splits["test"] = self.dataset.test
        facts = {}
        for prefix, split in splits.items():
            facts[f"data/{prefix}_samples"] = float(len(split))
            facts[f"data/{prefix}_constant_score"] = self.dataset.constant_score(split)
        return facts

    def evaluation_batches(self, split: Split) -> Iterator[Tensor]:
        """Yield a split as network inputs, batch by batch; images are in split order."""
        for _, inputs in self.batches.evaluation(split):
            yield inputs

    def own_its_memory(self) -> None:
        """Move all the trial's tensors into separate memory, for example out of a pack's memory."""
        for trainer in self.trainers.values():
            trainer.leave()
        for module in self.student.modules():
            for name, buffer in module.named_buffers(recurse=False):
                setattr(module, name, buffer.clone())
        place(self.student, self.device, self.config.precision)
        if self.companion is not None:
            place(self.companion.model, self.device, self.config.precision)
        for trainer in self.trainers.values():
            trainer.align()

    @property
    def identity(self) -> dict[str, str]:
        """Config with seeds, dataset digest and teacher digest, which a saved state must match."""
        return {
            "config": self.config.model_dump_json(),
            "dataset": self.dataset.digest,
            "teacher": self.teacher.digest if self.teacher is not None else "none",
        }

    def state_dict(self) -> dict[str, Any]:
        """Return the state: `epoch` (number of finished epochs), `identity`, and `tensors` by name, not copied."""
        tensors = {
            f"{name}.{key}": tensor
            for name, trainer in self.trainers.items()
            for key, tensor in trainer.state_tensors().items()
        }
        return {"epoch": self.epoch, "identity": self.identity, "tensors": tensors}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the result of `state_dict` for this same trial.

        Raises:
            ValueError: with the difference, if the state belongs to another trial or is incomplete. The run is then
                unchanged.
        """
        check_identity(state["identity"], self.identity)
        parts = {name: tensors_under(f"{name}.", state["tensors"]) for name in self.trainers}
        for name, trainer in self.trainers.items():
            trainer.check_state_tensors(parts[name])
        for name, trainer in self.trainers.items():
            trainer.load_state_tensors(parts[name])
        self.epoch = int(state["epoch"])


def build_batches(config: TrialConfig, dataset: Dataset, device: torch.device) -> BatchSource:
    """Return a trial's batch source: augmented images, or sentences grouped by length."""
    if not is_text(config.dataset):
        return EpochBatches(config, dataset, device)
    from trainables.batches.text import TextBatches  # imports the tokenizers library

    return TextBatches(config, dataset, device)
