"""Network trained together with the student: a peer initialised like the student, or the teacher itself."""

from collections.abc import Callable

import torch
from torch import Tensor

from trainables.models import DistillationModel
from trainables.models.compute import feature_and_logits
from trainables.steps.sgd import Trainer


class Companion:
    """Network that takes part in every step of the student and is trained in the same step.

    The companion sees each batch once per step in train mode, so BatchNorm statistics are updated as in the student.

    Args:
        name: trainer name: `peer` or `teacher`.
        model: the network.
        trainer: the network's trainer.
        prepare: input transform before the network; None for no transform.
    """

    def __init__(
        self,
        name: str,
        model: DistillationModel,
        trainer: Trainer,
        *,
        prepare: Callable[[Tensor], Tensor] | None = None,
    ) -> None:
        self.name = name
        self.model = model
        self.trainer = trainer
        self.forwards = 0
        self._prepare = prepare

    def logits(self, inputs: Tensor) -> Tensor:
        """Return logits (B, C), float32, for inputs in the common form of the study's networks."""
        self.forwards += len(inputs)
        prepared = inputs if self._prepare is None else self._prepare(inputs)
        return feature_and_logits(self.model, prepared)[1]

    def evaluated(self) -> Callable[[Tensor], Tensor]:
        """Set the network to eval mode and return a function from inputs to logits without gradient."""
        self.model.eval()
        return torch.no_grad()(self.logits)
