"""A trial's trainable modules and trainers: student, adapter, the method's parts, and a companion network.

Each module is initialised from a separate seed, so initial weights do not depend on which other modules exist.
"""

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from trainables.batches.images import BatchSource
from trainables.data.dataset import Dataset
from trainables.methods.maps import map_shapes
from trainables.methods.method import Method, PartsSetting
from trainables.models import DistillationModel, build_model
from trainables.models.compute import place
from trainables.process.randomness import seeded
from trainables.run.companion import Companion
from trainables.spec.methods import AdapterSettings
from trainables.spec.methods.basic import PesfKdSettings
from trainables.spec.modality import is_text
from trainables.spec.trial import TrialConfig, derive_seed
from trainables.steps.adamw import AdamWTrainer
from trainables.steps.adapter import AdapterAverage, TeacherAdapter
from trainables.steps.sgd import Trainer

if TYPE_CHECKING:
    from trainables.teacher_outputs.frozen import FrozenTeacher


def build_student(
    config: TrialConfig, dataset: Dataset, device: torch.device, teacher: "FrozenTeacher | None" = None
) -> DistillationModel:
    """Build the student with initial weights; the student `bert:N` takes them from the teacher."""
    with seeded(derive_seed("student", config.seed)):
        if config.begins_as_teacher:
            assert teacher is not None
            student = layers_of_teacher(config, teacher.model)
        else:
            student = build_network(config.student, dataset)
        if config.method_spec.shares_layers:
            from trainables.models.text import TextClassifier, share_layers

            assert isinstance(student, TextClassifier)
            share_layers(student)
    return place(student, device, config.precision)


def build_network(name: str, dataset: Dataset) -> DistillationModel:
    """Build an architecture for a dataset, with weights from torch's global generator or from the model's folder."""
    if is_text(dataset.name):
        from trainables.models.text_zoo import build_text_model  # imports transformers

        return build_text_model(name, dataset)
    return build_model(name, num_classes=dataset.num_classes, in_channels=dataset.info.channels)


def layers_of_teacher(config: TrialConfig, teacher: DistillationModel) -> DistillationModel:
    """Build the student `bert:N` from the teacher's embeddings, pooler and N layers; the last layer is new."""
    from trainables.models.text import TextClassifier, student_of_layers

    assert isinstance(teacher, TextClassifier)
    count = int(config.student.partition(":")[2])
    return student_of_layers(teacher, count, which=config.student_layers)


def build_adapter(config: TrialConfig, head: nn.Linear, device: torch.device) -> TeacherAdapter | AdapterAverage:
    """Build the adapter, or the average of several adapters, for a teacher with the given head."""
    settings, own = config.settings_of(AdapterSettings), config.settings
    shift = own.gap_target if isinstance(own, PesfKdSettings) and own.gap_control == "placebo" else 0.0
    with seeded(derive_seed("adapter", config.seed)):
        adapters = [
            TeacherAdapter(
                head.in_features,
                head.out_features,
                settings.adapter_width,
                kind=settings.adapter_kind,
                init=settings.adapter_init,
                head=head,
                shift=shift,
                dropout=settings.adapter_dropout,
            )
            for _ in range(settings.adapter_count)
        ]
    adapter = adapters[0] if len(adapters) == 1 else AdapterAverage(adapters)
    return adapter.requires_grad_(settings.adapter_training == "joint").to(device)


def build_parts(
    config: TrialConfig,
    method: Method,
    student: DistillationModel,
    teacher: "FrozenTeacher | None",
    dataset: Dataset,
    batches: BatchSource,
) -> nn.Module | None:
    """Build the method's trainable parts on the student's device; None if the method has none."""
    example = batches.example(1)
    setting = PartsSetting(
        student_dim=student.head.in_features,
        teacher_dim=teacher.head.in_features if teacher is not None else 0,
        labels=dataset.train.labels,
        student_maps=map_shapes(student, example) if method.spec.needs_maps else (),
        teacher_maps=map_shapes(teacher.model, example) if method.spec.needs_maps and teacher is not None else (),
        image=batches.shape(),
        num_classes=dataset.num_classes,
    )
    with seeded(derive_seed("method", config.seed)):
        parts = method.build_parts(config.model_dump(), setting)
    return parts.to(student.head.weight.device) if parts is not None else None


def student_trainer(config: TrialConfig, module: nn.Module, steps: int) -> Trainer:
    """Return a trainer with the student's settings, also used for a peer and for a method's parts.

    Args:
        config: trial config.
        module: module to train.
        steps: steps per epoch.
    """
    return _trainer(config)(
        module,
        learning_rate=config.student_learning_rate,
        momentum=config.student_momentum,
        weight_decay=config.student_weight_decay,
        schedule=config.student_schedule,
        epochs=config.epochs,
        steps=steps,
        warmup=config.rate_warmup,
        clip_norm=config.clip_norm,
    )


def adapter_trainer(config: TrialConfig, module: nn.Module, steps: int) -> Trainer:
    """Return a trainer with the adapter's settings, also used for a trainable teacher.

    Args:
        config: trial config.
        module: module to train.
        steps: steps per epoch.
    """
    settings = config.settings_of(AdapterSettings)
    return _trainer(config)(
        module,
        learning_rate=settings.adapter_learning_rate,
        momentum=settings.adapter_momentum,
        weight_decay=settings.adapter_weight_decay,
        schedule=settings.adapter_schedule,
        epochs=config.epochs,
        steps=steps,
        warmup=config.rate_warmup,
        clip_norm=config.clip_norm if settings.adapter_clip else 0.0,
        late_rate=config.student_learning_rate,
    )


def _trainer(config: TrialConfig) -> type[Trainer]:
    return AdamWTrainer if config.optimiser == "adamw" else Trainer


def build_companion(
    config: TrialConfig,
    method: Method,
    dataset: Dataset,
    teacher: "FrozenTeacher | None",
    device: torch.device,
    steps: int,
) -> Companion | None:
    """Build the network trained together with the student; None if the method has none."""
    if method.spec.trains_teacher:
        assert teacher is not None
        model = copy.deepcopy(teacher.model).requires_grad_(True)
        return Companion("teacher", model, adapter_trainer(config, model, steps), prepare=teacher.renormalised)
    if method.spec.peer is None:
        return None
    architecture = config.teacher if method.spec.peer == "teacher" else config.student
    with seeded(derive_seed("peer", config.seed)):
        if method.spec.peer == "student" and config.begins_as_teacher:
            assert teacher is not None
            model = layers_of_teacher(config, teacher.model)
        else:
            model = build_network(architecture, dataset)
    model = place(model, device, config.precision)
    return Companion("peer", model, student_trainer(config, model, steps))
