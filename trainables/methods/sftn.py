"""Student-friendly teachers: train the teacher with student-like branches, then use plain distillation.

The first phase trains the teacher, before and separately from the students. There is one teacher per architecture pair
and teacher seed. All trials and seeds of the student share the teacher, like an ordinary teacher. Training takes the
recipe's number of epochs; the branches make each epoch slower, and are discarded at the end. The training time is
stored next to the teacher's file. Every trial with this teacher reports the full time as
`cost/teacher_training_seconds`.
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from trainables.losses.logits import kd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.kd import kd_losses
from trainables.methods.maps import average_to, map_shapes
from trainables.methods.method import MapShape, Method, PartsSetting
from trainables.models import DistillationModel, build_model
from trainables.spec.methods import METHOD_SPECS, MethodSpec
from trainables.steps.closed_form import ClosedForm


class Branch(nn.Module):
    """Student with a teacher map as input: a 3 × 3 convolution replaces the student's first stages.

    Args:
        student: provides the later stages and the head; the earlier layers are removed.
        index: index of the student map replaced by the teacher's map.
        theirs: shape of the teacher's map.
        own: shape of the student's map.
    """

    def __init__(self, student: DistillationModel, index: int, theirs: MapShape, own: MapShape) -> None:
        super().__init__()
        self.transform = nn.Sequential(
            nn.Conv2d(theirs[0], own[0], 3, padding=1, bias=False), nn.BatchNorm2d(own[0]), nn.ReLU(inplace=True)
        )
        self.tail = student
        self._index = index
        self._size = own[1], own[2]
        _keep_used_layers(student, lambda: student.resume(index, torch.zeros(2, *own)))

    def forward(self, maps: Tensor) -> Tensor:
        """Compute logits (B, C) from the teacher's map (B, C_i, H_i, W_i)."""
        maps = _resized(self.transform(maps), self._size)
        logits: Tensor = self.tail.head(self.tail.resume(self._index, maps))
        return logits


class Branches(nn.ModuleList):
    """One branch for each teacher stage except the last, limited by the number of student stages.

    Args:
        student: architecture of the student.
        setting: sizes of the teacher, which is the network in training.
    """

    def __init__(self, student: str, setting: PartsSetting) -> None:
        channels = setting.image[0]
        model = build_model(student, num_classes=setting.num_classes, in_channels=channels)
        shapes = map_shapes(model, torch.zeros(1, *setting.image))
        pairs = branch_points(len(setting.student_maps), len(shapes))
        super().__init__(
            Branch(
                build_model(student, num_classes=setting.num_classes, in_channels=channels),
                own,
                setting.student_maps[theirs],
                shapes[own],
            )
            for theirs, own in pairs
        )
        self._from = [theirs for theirs, _ in pairs]

    def forward(self, maps: tuple[Tensor, ...]) -> list[Tensor]:
        """Compute logits (B, C) of each branch from all teacher maps."""
        return [branch(maps[index]) for branch, index in zip(self, self._from, strict=True)]


class BranchPoint(NamedTuple):
    """Indices of a teacher map and of the student map replaced by the teacher map."""

    theirs: int
    own: int


def branch_points(teacher_maps: int, student_maps: int) -> list[BranchPoint]:
    """Pair stages counted from the end, without the last stages and the stems; use the stems if nothing else is left.

    Args:
        teacher_maps: number of teacher maps, including the stem's.
        student_maps: number of student maps, including the stem's.
    """
    count = max(1, min(teacher_maps, student_maps) - 2)
    return [BranchPoint(teacher_maps - 1 - k, student_maps - 1 - k) for k in range(count, 0, -1)]


def branches(setting: PartsSetting, *, teacher: str) -> Branches:
    """Build the branches for training a student-friendly teacher.

    Args:
        setting: sizes of the network in training, the later teacher.
        teacher: architecture of the later student; field `teacher` in the config of this training.
    """
    return Branches(teacher, setting)


def friendly_teacher_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    sftn_temperature: float,
    sftn_ce_weight: float,
    sftn_kl_weight: float,
    sftn_branch_ce_weight: float,
) -> LossParts:
    """Compute ce_weight · CE(z_t, y) + kl_weight · mean of T² KL(z_t || z_b) + branch_ce_weight · mean of CE(z_b, y).

    Both means are over the branches b. The divergence compares probabilities softened by T, and sends gradient to both
    sides.

    Args:
        outputs: step outputs of the later teacher, with `student_logits` (B, C), `student_maps`, and the branches in
            `parts`.
        labels: (B,) int64.
        sftn_temperature: T.
        sftn_ce_weight: weight of the teacher's own cross-entropy.
        sftn_kl_weight: weight of the divergence between teacher and branches.
        sftn_branch_ce_weight: weight of the branches' cross-entropy.

    Returns:
        Loss parts `total`; `ce`, the teacher's cross-entropy; and `kd`, the divergence.

    Source:
        Park et al., "Learning Student-Friendly Teacher Networks for Knowledge Distillation" (2021), with the paper's
        weights 1, 3 and 1. The paper was not available for the following choices, which are ours. The divergence has
        the direction used in distillation. A branch starts with a 3 × 3 convolution, batch norm and ReLU, then averages
        or repeats the map to the student's resolution. Branches start after every stage except the last; if the numbers
        of stages differ, stages are counted from the end. The teacher's recipe also trains the branches.
    """
    assert isinstance(outputs.parts, Branches)
    assert outputs.student_maps is not None
    teacher, said = outputs.student_logits, outputs.parts(outputs.student_maps)
    ce = functional.cross_entropy(teacher, labels)
    kd = torch.stack([kd_loss(each, teacher, temperature=sftn_temperature) for each in said]).mean()
    branch_ce = torch.stack([functional.cross_entropy(each, labels) for each in said]).mean()
    total = sftn_ce_weight * ce + sftn_kl_weight * kd + sftn_branch_ce_weight * branch_ce
    return LossParts(total, ce=ce, kd=kd)


def sftn_losses(
    outputs: StepOutputs, labels: Tensor, *, temperature: float, ce_weight: float, kd_weight: float
) -> LossParts:
    """Compute the plain distillation loss `kd_losses` with the student-friendly teacher.

    Args:
        outputs: step outputs with `student_logits` and `teacher_logits`, both (B, C).
        labels: (B,) int64.
        temperature: T, softens both sides of the divergence.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence.

    Source:
        Park et al. (2021), see `friendly_teacher_losses`. The paper allows any distillation loss in this phase; this is
        the first one in the paper.
    """
    return kd_losses(outputs, labels, temperature=temperature, ce_weight=ce_weight, kd_weight=kd_weight)


@torch.no_grad()
def _keep_used_layers(model: DistillationModel, run: Callable[[], object]) -> None:
    """Replace layers never called by `run` with the identity. They are then not counted, trained or stored."""
    used: set[nn.Module] = {model.head}
    leaves = [module for module in model.modules() if not list(module.children())]
    hooks = [leaf.register_forward_pre_hook(lambda module, _: used.add(module)) for leaf in leaves]
    training = model.training
    model.eval()
    try:
        run()
    finally:
        model.train(training)
        for hook in hooks:
            hook.remove()
    for name, module in list(model.named_modules()):
        if module in leaves and module not in used and name:
            parent, _, own = name.rpartition(".")
            setattr(model.get_submodule(parent), own, nn.Identity())


def _resized(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Resize maps by averaging over blocks or by repeating pixels.

    Unlike adaptive pooling, both have deterministic gradients on CUDA.

    Raises:
        ValueError: neither size is a multiple of the other.
    """
    height, width = maps.shape[2:]
    if height % size[0] == 0 and width % size[1] == 0:
        return average_to(maps, size)
    if size[0] % height == 0 and size[1] % width == 0:
        return maps.repeat_interleave(size[0] // height, dim=2).repeat_interleave(size[1] // width, dim=3)
    raise ValueError(
        f"the teacher's maps of {height} × {width} cannot stand for the student's of {size[0]} × {size[1]}: "
        "one has to be a multiple of the other"
    )


FRIENDLY_TEACHER = Method(
    MethodSpec("sftn", needs_teacher=False, needs_maps=True), friendly_teacher_losses, parts=branches
)
METHOD = Method(METHOD_SPECS["sftn"], sftn_losses, closed_form=ClosedForm, teacher_method=FRIENDLY_TEACHER)
