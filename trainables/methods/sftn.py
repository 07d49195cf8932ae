"""Student-friendly teachers: trained with branches that end as the student does; then plain distillation.

The first phase is the teacher's own training, before and apart from the students': one teacher for each pair of
architectures and its seed, which all trials and seeds of that student share, as they share an ordinary teacher. It
takes the recipe's epochs, each dearer by the branches, which are thrown away in the end; what it took stands beside
the teacher's file and, whole, under `cost/teacher_training_seconds` of every trial that it teaches.
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
    """A student that begins with one of the teacher's maps: a 3 × 3 convolution in its first stages' place.

    Args:
        student: gives its later stages and its head; what lies before them is thrown away.
        index: of the student's map that the teacher's stands for.
        theirs: shape of the teacher's map.
        own: shape of the student's.
    """

    def __init__(self, student: DistillationModel, index: int, theirs: MapShape, own: MapShape) -> None:
        super().__init__()
        self.transform = nn.Sequential(
            nn.Conv2d(theirs[0], own[0], 3, padding=1, bias=False), nn.BatchNorm2d(own[0]), nn.ReLU(inplace=True)
        )
        self.tail = student
        self._index = index
        self._size = own[1], own[2]
        _keep_what_runs(student, lambda: student.resume(index, torch.zeros(2, *own)))

    def forward(self, maps: Tensor) -> Tensor:
        """Logits (B, C) from the teacher's map (B, C_i, H_i, W_i)."""
        maps = _resized(self.transform(maps), self._size)
        logits: Tensor = self.tail.head(self.tail.resume(self._index, maps))
        return logits


class Branches(nn.ModuleList):
    """A branch from each stage of the teacher's but the last, as far as the student has stages too.

    Args:
        student: architecture.
        setting: of the teacher, which is the network that learns here.
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
        """Logits (B, C) of each branch, from all of the teacher's maps."""
        return [branch(maps[index]) for branch, index in zip(self, self._from, strict=True)]


class BranchPoint(NamedTuple):
    """Which map of the teacher's stands for which of the student's, by their indices."""

    theirs: int
    own: int


def branch_points(teacher_maps: int, student_maps: int) -> list[BranchPoint]:
    """Pairs of stages counted from the end, without the last ones and the stems; the stems where nothing else is left.

    Args:
        teacher_maps: how many the teacher has, its stem's among them.
        student_maps: the same of the student.
    """
    count = max(1, min(teacher_maps, student_maps) - 2)
    return [BranchPoint(teacher_maps - 1 - k, student_maps - 1 - k) for k in range(count, 0, -1)]


def branches(setting: PartsSetting, *, teacher: str) -> Branches:
    """What a student-friendly teacher is trained with.

    Args:
        setting: of the network that learns, which is to become a teacher.
        teacher: the field of its training that names the other network, here the student to be.
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
    """ce_weight · CE(z_t, y) + kl_weight · mean of T² KL(z_t || z_b) + branch_ce_weight · mean of CE(z_b, y).

    The means are over the branches b; the divergence, of probabilities softened by T, sends gradient to both sides.

    Args:
        outputs: of the network that learns to be a teacher: `student_logits` (B, C), `student_maps`, and the branches
            in `parts`.
        labels: (B,) int64.
        sftn_temperature: T.
        sftn_ce_weight: weight of the teacher's own cross-entropy.
        sftn_kl_weight: weight of its divergence from the branches.
        sftn_branch_ce_weight: weight of the branches' cross-entropy.

    Returns:
        The parts `total`; `ce`, the teacher's; and `kd`, the divergence.

    Source:
        Park et al., "Learning Student-Friendly Teacher Networks for Knowledge Distillation" (2021), with its weights
        1, 3 and 1. Ours where the paper was not at hand: the divergence is in the direction of distillation, a branch
        begins with a 3 × 3 convolution, a batch norm and a ReLU (averaged or repeated to the student's resolution), and
        branches begin after every stage but the last, counted from the end where both have unequal numbers of stages.
        Branches learn by the teacher's recipe.
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
    """Plain distillation from the student-friendly teacher: `kd_losses`.

    Args:
        outputs: needs `student_logits` and `teacher_logits`, (B, C).
        labels: (B,) int64.
        temperature: softens both sides of the divergence.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence.

    Source:
        Park et al. (2021), see `friendly_teacher_losses`; there any distillation may follow, this is its first.
    """
    return kd_losses(outputs, labels, temperature=temperature, ce_weight=ce_weight, kd_weight=kd_weight)


@torch.no_grad()
def _keep_what_runs(model: DistillationModel, run: Callable[[], object]) -> None:
    """Throw away the layers that are not called, so that nobody counts, trains or stores them."""
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
    """Averaged over blocks, or repeated: unlike their adaptive kin, both have deterministic gradients on CUDA."""
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
