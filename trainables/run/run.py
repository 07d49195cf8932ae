"""A whole trial: student, adapter and who else learns, their optimisers and the epoch, trained and evaluated in turn.

An epoch is a function of the state before it and of the config: its batch order, its views and any random
number that a layer draws come from seeds and the epoch's number, and a learning rate from the epoch's number.
So the state to keep is the weights, the momenta and the number of finished epochs, and a resumed trial
equals, to the bit on CPU, one that never stopped.
"""

import math
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from trainables.batches.images import Batch, BatchSource, EpochBatches
from trainables.data.dataset import Dataset, Split
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method
from trainables.methods.registry import METHODS
from trainables.models import DistillationModel
from trainables.models.compute import arithmetic, forward_pass, place
from trainables.process.memory import forget_peak_memory
from trainables.process.randomness import seeded
from trainables.run.evaluation import Calibration, calibration_of, measures_on_test, validation_measures
from trainables.run.identity import check_fit, check_identity, check_outputs
from trainables.run.learners import (
    adapter_trainer,
    build_adapter,
    build_companion,
    build_parts,
    build_student,
    student_trainer,
)
from trainables.run.predictions import SplitAnswers
from trainables.run.workers import Workers, share_norms
from trainables.spec.batch_sizes import largest_batch
from trainables.spec.measures import CALIBRATION
from trainables.spec.modality import is_text
from trainables.spec.trial import TrialConfig, derive_seed
from trainables.steps.adapter import TeacherAdapter
from trainables.steps.adapter_formulas import AdapterStep
from trainables.steps.closed_form import ClosedForm
from trainables.steps.loss_log import LossLog, NonFiniteLossError
from trainables.steps.numpy_step import NumpyAdapterStep, NumpyForm, fits_adapter, fits_form
from trainables.steps.sgd import Trainer, tensors_under
from trainables.teacher_outputs.batch import TeacherBatch, TeacherOutputs
from trainables.teacher_outputs.live import LiveTeacherOutputs

if TYPE_CHECKING:
    from trainables.teacher_outputs.frozen import FrozenTeacher


class DistillationRun:
    """One trial in progress.

    Args:
        config: the trial.
        dataset: its dataset, split by `config.split_seed`. The test split is read by `evaluate_test` alone.
        teacher: the frozen teacher. A method that needs none is measured against it where it is given.
        device: where everything runs.
        teacher_outputs: where the teacher's outputs come from; the teacher itself, live, unless given.
        method: instead of the config's, for the training of a teacher by a method of its own.
        reads_test: whether the last epoch reports `test/accuracy` too.
        workers: the processes that train the trial together, each with a run of its own; see
            `trainables.run.workers`. Not given, it is this one alone.

    Attributes:
        answers: what its networks say of a whole split.
        calibration: what reliability diagrams are drawn of, once the last epoch was evaluated; see
            `trainables.spec.measures`.

    Raises:
        ValueError: if the method needs a teacher and there is none, or dataset, teacher or its outputs do not
            fit the config.
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
        # Workers each have a share of the gradient, which the formulas have not.
        self._closed_form = self.method.gradients(values) if workers is None else None
        self._gradients: NumpyForm | ClosedForm | None = self._closed_form
        self._largest_batch = largest_batch(len(dataset.train), config.batch_size)
        if self._closed_form is not None and fits_form(self.device, self._largest_batch, dataset.info.num_classes):
            self._gradients = NumpyForm(self._closed_form)
        self.batches = build_batches(config, dataset, self.device)
        self._build_networks()
        self.answers = SplitAnswers(self.student, dataset, self.batches, workers)
        self._forwards_reported = 0

    def _build_networks(self) -> None:
        config = self.config
        self.student: DistillationModel = build_student(config, self.dataset, self.device, self.teacher)
        self.student_trainer = student_trainer(config, self.student, len(self.batches))
        self.adapter: TeacherAdapter | None = None
        self.adapter_trainer: Trainer | None = None
        self._adapter_step: NumpyAdapterStep | AdapterStep | None = None
        if config.method_spec.has_adapter:
            assert self.teacher is not None
            self.adapter = build_adapter(config, self.teacher.head, self.device)
            self.adapter_trainer = adapter_trainer(config, self.adapter, len(self.batches))
            if self._closed_form is not None:
                small = fits_adapter(self.adapter, self.device, self._largest_batch) and self.adapter_trainer.is_plain
                self._adapter_step = (NumpyAdapterStep if small else AdapterStep)(self.adapter, self.adapter_trainer)
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

    @property
    def trainers(self) -> dict[str, Trainer]:
        """Whoever learns in this trial, by name: the student, and adapter, the method's own parts, peer or teacher."""
        trainers = {"student": self.student_trainer, "adapter": self.adapter_trainer, "method": self.parts_trainer}
        if self.companion is not None:
            trainers[self.companion.name] = self.companion.trainer
        return {who: trainer for who, trainer in trainers.items() if trainer is not None}

    @property
    def finished(self) -> bool:
        """Whether all epochs are done."""
        return self.epoch >= self.config.epochs

    def run_epoch(self) -> dict[str, float]:
        """Train one epoch and evaluate: every measure that the method has.

        `trainables.costs.epoch.run_epoch` does the same and measures the costs too. The last epoch of a trial that
        `reads_test` has `test/accuracy`.

        Raises:
            NonFiniteLossError: see `train_epoch`.
        """
        return self.train_epoch() | self.evaluate() | self.test_at_the_end()

    def take_forwards(self) -> int:
        """Samples that went through the teacher itself since this was last called, of all workers.

        Those of the validation split pass once in a trial (and once more after a resume); through a teacher that learns
        all pass every epoch.
        """
        forwards = self.teacher_outputs.forwards if self.teacher_outputs is not None else 0
        if self.companion is not None and self.method.spec.trains_teacher:
            forwards += self.companion.forwards
        if self.workers is not None:
            forwards = self.workers.total(forwards, self.device)
        taken, self._forwards_reported = forwards - self._forwards_reported, forwards
        return taken

    def train_epoch(self) -> dict[str, float]:
        """Go once through the train split, the last batch holding what is left over; see `trainables.spec.batch_sizes`.

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
        for trainer in self.trainers.values():
            trainer.module.train()
            trainer.begin_epoch(self.epoch)
        self.begin_drawing()
        log = LossLog(self._closed_form)
        own = (self.workers.rank,) if self.workers is not None and self.workers.rank else ()
        with seeded(derive_seed("epoch", self.config.seed, self.epoch, *own), self.device):
            for batch in self._batches_of_epoch():
                self.train_batch(batch, log)
        losses = log.means(self.epoch + 1, self.config.epochs)
        self.epoch += 1
        self.training_seconds = time.perf_counter() - started
        return losses

    def _batches_of_epoch(self) -> Iterator[Batch]:
        if self.workers is None:
            return self.batches.of_epoch(self.epoch, self.stored_outputs)
        return self.batches.shares_of_epoch(self.epoch, self.stored_outputs, self.workers.rows)

    def begin_drawing(self) -> None:
        """Let the losses of this epoch draw from (seed, epoch) alone."""
        seed = derive_seed("losses", self.config.seed, self.epoch)
        self._generator = torch.Generator(self.device).manual_seed(seed)

    @property
    def stored_outputs(self) -> TeacherOutputs | None:
        """What batches bring along, where the method needs it and it is stored."""
        outputs = self.teacher_outputs
        return outputs if self.method.asks_frozen_teacher and outputs is not None and outputs.stored else None

    def train_batch(self, batch: Batch, log: LossLog) -> None:
        """One step of everybody who learns, on one batch of the train split.

        Args:
            batch: of the train split.
            log: hears the losses from before the step.
        """
        teacher = batch.teacher
        if teacher is None and self.method.asks_frozen_teacher:
            assert self.teacher_outputs is not None
            with arithmetic(self.config.precision, self.device):  # its own net runs as the student does
                teacher = self.teacher_outputs.train_batch(batch.indices, batch.slot, batch.inputs)
        with arithmetic(self.config.precision, self.device):
            feature, logits, maps = forward_pass(self.student, batch.inputs, maps=self.method.spec.needs_maps)
        if self._gradients is not None and teacher is not None:
            self._backward_by_formula(logits, teacher, batch.labels, log)
        else:
            self._backward(feature, logits, teacher, batch, log, maps)

    def _backward(
        self,
        feature: Tensor,
        logits: Tensor,
        teacher: TeacherBatch | None,
        batch: Batch,
        log: LossLog,
        maps: tuple[Tensor, ...] | None,
    ) -> None:
        parts = self.losses(feature, logits, teacher, batch, maps)
        for trainer in self.trainers.values():
            trainer.forget_gradients()
        parts.total.backward()
        if self.workers is not None:
            self.workers.add_gradients(self.trainers)
        for trainer in self.trainers.values():
            trainer.step()
        log.add(parts.detach(), len(batch.labels if batch.whole is None else batch.whole[0]))

    def losses(
        self,
        feature: Tensor,
        logits: Tensor,
        teacher: TeacherBatch | None,
        batch: Batch,
        maps: tuple[Tensor, ...] | None = None,
    ) -> LossParts:
        """The losses of a batch with their graph, from the student's feature (B, D), logits (B, C) and maps."""
        adapted, beside = None, self._companion_logits(batch.inputs)
        if self.adapter is not None:
            assert teacher is not None
            adapted = self.adapter(teacher.feature, teacher.logits)
        outputs = StepOutputs(
            student_feature=feature,
            student_logits=logits,
            teacher_feature=teacher.feature if teacher is not None else None,
            teacher_logits=teacher.logits if teacher is not None else None,
            adapted_logits=beside if self.method.spec.trains_teacher else adapted,
            peer_logits=beside if self.method.spec.peer is not None else None,
            parts=self.parts,
            indices=batch.indices,
            epoch=self.epoch,
            generator=self._generator,
            student_maps=maps,
            teacher_maps=teacher.maps if teacher is not None else None,
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

    def _backward_by_formula(self, logits: Tensor, teacher: TeacherBatch, labels: Tensor, log: LossLog) -> None:
        assert self._gradients is not None
        taught_by = teacher.logits
        if self._adapter_step is not None:
            taught_by = self._adapter_step.forward(teacher.feature, teacher.logits)
        gradients = self._gradients(logits, taught_by, labels)
        # Before the student's backward pass, whose code would push this code out of the processor's caches.
        if self._adapter_step is not None:
            assert gradients.taught_by is not None
            self._adapter_step.learn(gradients.taught_by)
        log.add_later(gradients.log_p, labels)
        self.student_trainer.forget_gradients()
        logits.backward(gradients.student)
        self.student_trainer.step()

    @torch.no_grad()
    def evaluate(self, student_logits: Tensor | None = None) -> dict[str, float]:
        """`val/*` on the validation split; which of them a method has, `validation_measures` says.

        Args:
            student_logits: (N, C) of the split, if somebody has computed them already.

        Raises:
            NonFiniteLossError: naming the epoch and the measures, where the last step of an epoch spoilt the
                weights: its loss was computed before that step.
        """
        split, frozen, adapted, peer = self.dataset.validation, None, None, None
        # Where there is a peer and no teacher, the peer stands for it.
        if self.teacher_outputs is not None and (self.method.spec.peer is None or self.method.spec.needs_teacher):
            teacher = self.answers.of_frozen_teacher(self.teacher_outputs)
            frozen = teacher.logits
            if self.adapter is not None:
                self.adapter.eval()
                adapted = self.adapter(teacher.feature, frozen)
        if self.companion is not None:
            beside = self.answers.of(self.companion.evaluated(), split)
            adapted = beside if self.method.spec.trains_teacher else adapted
            peer = beside if self.method.spec.peer is not None else None
        student = self.answers.of_student(split) if student_logits is None else student_logits
        labels = split.labels.to(self.device)
        measures = validation_measures(
            student,
            labels,
            temperature=self.config.temperature,
            teacher_logits=frozen,
            adapted_logits=adapted,
            peer_logits=peer,
            metrics=self.dataset.info.metrics,
        )
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
        return measures

    @torch.no_grad()
    def evaluate_test(self) -> dict[str, float]:
        """`test/accuracy`, and what else the dataset is measured by, for the final confirmation of a study.

        It is the one reader of the test split.
        """
        split = self.dataset.test
        logits, labels = self.answers.of_student(split), split.labels.to(self.device)
        self.calibration |= calibration_of(labels, {CALIBRATION[-1]: logits})
        return measures_on_test(logits, labels, self.dataset.info.metrics)

    def test_at_the_end(self) -> dict[str, float]:
        """What `evaluate_test` says, once all epochs of a trial that `reads_test` are done; nothing otherwise."""
        return self.evaluate_test() if self.reads_test and self.finished else {}

    def data_facts(self) -> dict[str, float]:
        """`DATA_FACTS` on the validation split and, once the trial has read it, on the test split."""
        splits = {"val": self.dataset.validation}
        if self.reads_test and self.finished:
            splits["test"] = self.dataset.test
        facts = {}
        for prefix, split in splits.items():
            facts[f"data/{prefix}_samples"] = float(len(split))
            facts[f"data/{prefix}_constant_score"] = self.dataset.constant_score(split)
        return facts

    def evaluation_batches(self, split: Split) -> Iterator[Tensor]:
        """A split's samples as networks take them; images in the split's own order."""
        for _, inputs in self.batches.evaluation(split):
            yield inputs

    def own_its_memory(self) -> None:
        """Let all that the trial has live in memory of its own, if it lived in another's, such as a pack's."""
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
        check_identity(state["identity"], self.identity)
        parts = {who: tensors_under(f"{who}.", state["tensors"]) for who in self.trainers}
        for who, trainer in self.trainers.items():
            trainer.check_state_tensors(parts[who])
        for who, trainer in self.trainers.items():
            trainer.load_state_tensors(parts[who])
        self.epoch = int(state["epoch"])


def build_batches(config: TrialConfig, dataset: Dataset, device: torch.device) -> BatchSource:
    """The batches of a trial: of images in their views, or of sentences by their length."""
    if not is_text(config.dataset):
        return EpochBatches(config, dataset, device)
    from trainables.batches.text import TextBatches  # with the tokenisers' library

    return TextBatches(config, dataset, device)
