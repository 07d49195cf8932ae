"""The network that learns beside the student in every step: a peer that begins as it does, or the teacher itself."""

from collections.abc import Callable

import torch
from torch import Tensor

from trainables.models import DistillationModel
from trainables.models.compute import feature_and_logits
from trainables.steps.sgd import Trainer


class Companion:
    """A network that takes part in the student's steps and makes its own.

    Its BatchNorm sees each batch in train mode, once a step, as the student's does.

    Args:
        name: among those who learn: `peer`, or `teacher`.
        model: the network.
        trainer: of it.
        prepare: what its images go through first; as they are if not given.
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
        """Logits (B, C) float32 of inputs as the study gives them to all networks."""
        self.forwards += len(inputs)
        prepared = inputs if self._prepare is None else self._prepare(inputs)
        return feature_and_logits(self.model, prepared)[1]

    def evaluated(self) -> Callable[[Tensor], Tensor]:
        """The network in eval mode, which answers with logits without gradient."""
        self.model.eval()
        return torch.no_grad()(self.logits)
