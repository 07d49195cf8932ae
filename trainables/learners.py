"""Who learns in a trial: student, adapter, the method's own parts, a network beside the student; with their trainers.

Each begins from its own seed, so that who else there is changes nobody's first weights.
"""

import copy
from typing import TYPE_CHECKING

import torch
from torch import nn

from trainables.adapter import TeacherAdapter
from trainables.companion import Companion
from trainables.compute import place
from trainables.data.dataset import Dataset
from trainables.methods.maps import map_shapes
from trainables.methods.method import Method, PartsSetting
from trainables.models import DistillationModel, build_model
from trainables.optimisation import Trainer
from trainables.randomness import seeded
from trainables.trial import TrialConfig, derive_seed

if TYPE_CHECKING:
    from trainables.teacher.frozen import FrozenTeacher


def build_student(config: TrialConfig, dataset: Dataset, device: torch.device) -> DistillationModel:
    """The student with its first weights."""
    info = dataset.info
    with seeded(derive_seed("student", config.seed)):
        student = build_model(config.student, num_classes=info.num_classes, in_channels=info.channels)
    return place(student, device, config.precision)


def build_adapter(config: TrialConfig, head: nn.Linear, device: torch.device) -> TeacherAdapter:
    """The adapter of the teacher with that head."""
    is_placebo = config.gap_control == "placebo" and "gap_control" in config.method_entry.fields
    with seeded(derive_seed("adapter", config.seed)):
        adapter = TeacherAdapter(
            head.in_features,
            head.out_features,
            config.adapter_width,
            kind=config.adapter_kind,
            init=config.adapter_init,
            head=head,
            shift=config.gap_target if is_placebo else 0.0,
        )
    return adapter.to(device)


def build_parts(
    config: TrialConfig,
    method: Method,
    student: DistillationModel,
    teacher: "FrozenTeacher | None",
    dataset: Dataset,
) -> nn.Module | None:
    """What the method itself has, on the student's device; None if it has nothing."""
    info = dataset.info
    image = info.channels, dataset.train.image_size, dataset.train.image_size
    setting = PartsSetting(
        student_dim=student.head.in_features,
        teacher_dim=teacher.head.in_features if teacher is not None else 0,
        labels=dataset.train.labels,
        student_maps=map_shapes(student, image) if method.needs_maps else (),
        teacher_maps=map_shapes(teacher.model, image) if method.needs_maps and teacher is not None else (),
        image=image,
        num_classes=info.num_classes,
    )
    with seeded(derive_seed("method", config.seed)):
        parts = method.build_parts(config.model_dump(), setting)
    return parts.to(student.head.weight.device) if parts is not None else None


def student_trainer(config: TrialConfig, module: nn.Module) -> Trainer:
    """Trains the student, or what is trained as the student is: a peer, and a method's own parts."""
    return Trainer(
        module,
        learning_rate=config.student_learning_rate,
        momentum=config.student_momentum,
        weight_decay=config.student_weight_decay,
        schedule=config.student_schedule,
        epochs=config.epochs,
    )


def build_companion(
    config: TrialConfig, method: Method, dataset: Dataset, teacher: "FrozenTeacher | None", device: torch.device
) -> Companion | None:
    """The network that learns beside the student, if the method has one."""
    if method.trains_teacher:
        assert teacher is not None
        model = copy.deepcopy(teacher.model).requires_grad_(True)
        return Companion("teacher", model, adapter_trainer(config, model), prepare=teacher.renormalised)
    if method.peer is None:
        return None
    architecture = config.teacher if method.peer == "teacher" else config.student
    with seeded(derive_seed("peer", config.seed)):
        model = build_model(architecture, num_classes=dataset.num_classes, in_channels=dataset.info.channels)
    model = place(model, device, config.precision)
    return Companion("peer", model, student_trainer(config, model))


def adapter_trainer(config: TrialConfig, module: nn.Module) -> Trainer:
    """Trains the adapter, or what learns in its place: the teacher."""
    return Trainer(
        module,
        learning_rate=config.adapter_learning_rate,
        momentum=config.adapter_momentum,
        weight_decay=config.adapter_weight_decay,
        schedule=config.adapter_schedule,
        epochs=config.epochs,
    )
