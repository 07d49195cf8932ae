"""What the methods that match maps have in common: which maps they match, and maps of two sizes made one.

Maps are those of `FeatureMaps`: [0] after the stem, then one of each stage.
"""

from collections.abc import Sequence
from typing import Final, NamedTuple, TypeVar

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d

from trainables.losses.parts import StepOutputs
from trainables.methods.method import MapShape
from trainables.models import DistillationModel

HINT_STAGE: Final = 2

Each = TypeVar("Each")


class MapPair(NamedTuple):
    """A map of the student and the one of the teacher that it is to resemble.

    Args:
        student: (B, C of the student, H, W).
        teacher: (B, C of the teacher, H', W'), without gradient.
    """

    student: Tensor
    teacher: Tensor

    def at_one_size(self) -> "MapPair":
        """Both at the smaller height and the smaller width: the larger is pooled, by averages."""
        size = min(self.student.shape[2], self.teacher.shape[2]), min(self.student.shape[3], self.teacher.shape[3])
        return MapPair(average_to(self.student, size), average_to(self.teacher, size))


@torch.no_grad()
def map_shapes(model: DistillationModel, example: Tensor) -> tuple[MapShape, ...]:
    """Shapes of the maps that the model makes of one sample: (C, H, W) of an image's, (D,) of a sentence's states.

    Args:
        model: stays as it is.
        example: one sample, as networks take it.
    """
    training = model.training
    if example.is_floating_point():
        example = example.to(model.head.weight.dtype)
    maps = model.eval().stages(example).maps  # nothing that the model keeps moves
    model.train(training)
    return tuple(tuple(each.shape[1:]) for each in maps)


def in_pairs(student: Sequence[Each], teacher: Sequence[Each]) -> list[tuple[Each, Each]]:
    """The stages' maps, or what belongs to them, from the first stage on; the stems, and stages left over, are not."""
    return list(zip(student[1:], teacher[1:], strict=False))


def at_hint(maps: Sequence[Each]) -> Each:
    """That of the second stage, in the middle of most nets; of a net with one stage, of that."""
    return maps[min(HINT_STAGE, len(maps) - 1)]


def stage_pairs(outputs: StepOutputs) -> list[MapPair]:
    """The pairs of `in_pairs`, as they are."""
    return [MapPair(*pair) for pair in in_pairs(*_of_both(outputs))]


def last_pair(outputs: StepOutputs) -> MapPair:
    """The last stages' maps."""
    student, teacher = _of_both(outputs)
    return MapPair(student[-1], teacher[-1])


def hint_pair(outputs: StepOutputs) -> MapPair:
    """The maps of `at_hint`."""
    student, teacher = _of_both(outputs)
    return MapPair(at_hint(student), at_hint(teacher))


def average_to(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """(B, C, H, W) averaged over windows to (B, C, *size): what adaptive pooling gives.

    Adaptive pooling itself has no deterministic gradient on CUDA.

    Args:
        maps: at least as large as `size`.
        size: height and width.
    """
    (height, width), (rows, columns) = maps.shape[2:], size
    if (height, width) == size:
        return maps
    if height % rows == 0 and width % columns == 0:
        return avg_pool2d(maps, (height // rows, width // columns))
    return _windows(height, rows, maps) @ maps @ _windows(width, columns, maps).mT


def _windows(source: int, target: int, like: Tensor) -> Tensor:
    """(target, source): row i averages the positions that the i-th of `target` equal shares touches."""
    shares, positions = torch.arange(target, device=like.device), torch.arange(source, device=like.device)
    first, end = shares * source // target, ((shares + 1) * source + target - 1) // target
    inside = (positions >= first[:, None]) & (positions < end[:, None])
    return inside.to(like.dtype) / (end - first)[:, None]


def _of_both(outputs: StepOutputs) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    assert outputs.student_maps is not None
    assert outputs.teacher_maps is not None
    return outputs.student_maps, outputs.teacher_maps
