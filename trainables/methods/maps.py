"""Helpers for methods that match feature maps: pair the maps of student and teacher, and pool a pair to one size.

Maps come from `FeatureMaps`: index 0 is after the stem, followed by one map per stage.
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
    """Student map and the matching teacher map.

    Args:
        student: (B, C of the student, H, W).
        teacher: (B, C of the teacher, H', W'), without gradient.
    """

    student: Tensor
    teacher: Tensor

    def at_one_size(self) -> "MapPair":
        """Average-pool both maps to the smaller height and the smaller width."""
        size = min(self.student.shape[2], self.teacher.shape[2]), min(self.student.shape[3], self.teacher.shape[3])
        return MapPair(average_to(self.student, size), average_to(self.teacher, size))


@torch.no_grad()
def map_shapes(model: DistillationModel, example: Tensor) -> tuple[MapShape, ...]:
    """Return the shapes of the model's maps for one sample: (C, H, W) for images, (D,) for hidden states of sentences.

    Args:
        model: model to inspect; left unchanged.
        example: batch of one sample, in the input format of the networks.
    """
    training = model.training
    if example.is_floating_point():
        example = example.to(model.head.weight.dtype)
    maps = model.eval().stages(example).maps  # eval mode leaves running statistics unchanged
    model.train(training)
    return tuple(tuple(each.shape[1:]) for each in maps)


def in_pairs(student: Sequence[Each], teacher: Sequence[Each]) -> list[tuple[Each, Each]]:
    """Pair the entries of both networks stage by stage, from the first stage on.

    The stems are skipped, and so are the extra stages of the deeper network.
    """
    return list(zip(student[1:], teacher[1:], strict=False))


def at_hint(maps: Sequence[Each]) -> Each:
    """Return the second stage's entry (the middle of most networks), or the only stage's."""
    return maps[min(HINT_STAGE, len(maps) - 1)]


def stage_pairs(outputs: StepOutputs) -> list[MapPair]:
    """Return the map pairs of all matched stages at their original sizes; see `in_pairs`."""
    return [MapPair(*pair) for pair in in_pairs(*_of_both(outputs))]


def last_pair(outputs: StepOutputs) -> MapPair:
    """Return the map pair of the last stages."""
    student, teacher = _of_both(outputs)
    return MapPair(student[-1], teacher[-1])


def hint_pair(outputs: StepOutputs) -> MapPair:
    """Return the map pair of the hint stages; see `at_hint`."""
    student, teacher = _of_both(outputs)
    return MapPair(at_hint(student), at_hint(teacher))


def average_to(maps: Tensor, size: tuple[int, int]) -> Tensor:
    """Average maps (B, C, H, W) over windows to (B, C, *size), with the result of adaptive average pooling.

    PyTorch's adaptive pooling is not used because it has no deterministic gradient on CUDA.

    Args:
        maps: (B, C, H, W), at least as large as `size`.
        size: height and width of the result.
    """
    (height, width), (rows, columns) = maps.shape[2:], size
    if (height, width) == size:
        return maps
    if height % rows == 0 and width % columns == 0:
        return avg_pool2d(maps, (height // rows, width // columns))
    return _windows(height, rows, maps) @ maps @ _windows(width, columns, maps).mT


def _windows(source: int, target: int, like: Tensor) -> Tensor:
    """Build an averaging matrix (target, source).

    Row i averages the positions covered, even partly, by the i-th of `target` equal shares.
    """
    shares, positions = torch.arange(target, device=like.device), torch.arange(source, device=like.device)
    first, end = shares * source // target, ((shares + 1) * source + target - 1) // target
    inside = (positions >= first[:, None]) & (positions < end[:, None])
    return inside.to(like.dtype) / (end - first)[:, None]


def _of_both(outputs: StepOutputs) -> tuple[tuple[Tensor, ...], tuple[Tensor, ...]]:
    assert outputs.student_maps is not None
    assert outputs.teacher_maps is not None
    return outputs.student_maps, outputs.teacher_maps
