"""Live teacher outputs, the simplest source: one forward pass of the teacher per batch."""

from typing import TYPE_CHECKING

from torch import Tensor

from trainables.teacher_outputs.batch import TeacherBatch

if TYPE_CHECKING:
    from trainables.teacher_outputs.frozen import FrozenTeacher


class LiveTeacherOutputs:
    """Teacher outputs, computed by a forward pass for every batch.

    Args:
        teacher: frozen teacher.
        maps: whether batches of the train split include feature maps.
    """

    stored = False

    def __init__(self, teacher: "FrozenTeacher", *, maps: bool = False) -> None:
        self._teacher = self.source = teacher
        self.gives_maps = maps
        self.numbers_per_sample = teacher.head.in_features + teacher.head.out_features
        self.forwards = 0

    def stored_bytes(self, slots: int) -> int:  # noqa: ARG002
        """Return 0, because nothing is stored."""
        return 0

    def train_batch(self, indices: Tensor, slot: int, images: Tensor) -> TeacherBatch:  # noqa: ARG002
        """Compute the outputs in one forward pass. The arguments `indices` and `slot` are ignored."""
        return self._forward(images, maps=self.gives_maps)

    def validation(self, indices: Tensor, images: Tensor) -> TeacherBatch:  # noqa: ARG002
        """Compute the outputs in one forward pass, without maps."""
        return self._forward(images, maps=False)

    def _forward(self, images: Tensor, *, maps: bool) -> TeacherBatch:
        self.forwards += len(images)
        outputs: TeacherBatch = self._teacher(images, maps=maps)
        return outputs
