"""Contrastive representation distillation: match each sample across student and teacher embeddings.

Notation: N samples in the train split, B samples in the batch, K negatives per sample, embeddings of d dimensions.
Student and teacher each have a linear embedding of their feature, and a memory of the latest embedding of every sample.

Let u be one side's embedding of a sample, m the other side's memory of a sample, and x = exp(u · m / τ). The constant Z
makes x / Z roughly a probability over the train split. Then h = (x / Z) / (x / Z + K / N) is the estimated probability
that u and m belong to the same sample. The loss of a side is -log h for the sample itself, plus the sum of -log(1 - h)
over the negatives.
"""

import math
from typing import Final

import torch
from torch import Tensor, nn
from torch.nn.functional import normalize, softplus

from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, PartsSetting, weighted_sum
from trainables.spec.methods import METHOD_SPECS

_UNKNOWN: Final = -math.inf


class ContrastiveMemory(nn.Module):
    """Embeddings and memories of student and teacher, with negatives drawn from other classes.

    Args:
        student_dim: width of the student's feature.
        teacher_dim: width of the teacher's feature.
        labels: (N,) int64, labels of the train split.
        dim: d, size of the embeddings.
        negatives: K, number of negatives per sample.
        temperature: τ.
        momentum: share of the old embedding in an updated memory entry.
    """

    memory: Tensor
    log_z: Tensor
    by_class: Tensor
    class_start: Tensor
    class_size: Tensor

    def __init__(
        self,
        student_dim: int,
        teacher_dim: int,
        labels: Tensor,
        *,
        dim: int,
        negatives: int,
        temperature: float,
        momentum: float,
    ) -> None:
        super().__init__()
        self.negatives = negatives
        self.temperature = temperature
        self.momentum = momentum
        self.student_embedding = nn.Linear(student_dim, dim)
        self.teacher_embedding = nn.Linear(teacher_dim, dim)
        spread = 1 / math.sqrt(dim / 3)
        self.register_buffer("memory", torch.empty(2, len(labels), dim).uniform_(-spread, spread))  # student, teacher
        self.register_buffer("log_z", torch.full((2,), _UNKNOWN))
        labels = labels.cpu()
        sizes = torch.bincount(labels)
        # Derived from the data, so not stored in checkpoints.
        self.register_buffer("by_class", torch.argsort(labels, stable=True), persistent=False)
        self.register_buffer("class_start", sizes.cumsum(0) - sizes, persistent=False)
        self.register_buffer("class_size", sizes, persistent=False)

    def forward(self, outputs: StepOutputs, labels: Tensor) -> Tensor:
        """Compute the contrastive loss of a batch, then update the memory with the batch.

        Because of the update, a second call with the same batch returns another value.

        Args:
            outputs: step outputs with both features, `indices` and `generator`.
            labels: (B,) int64.

        Returns:
            Scalar, the sum of both sides' losses, each a mean over the batch.
        """
        assert outputs.teacher_feature is not None
        assert outputs.indices is not None
        student = normalize(self.student_embedding(outputs.student_feature), dim=1)
        teacher = normalize(self.teacher_embedding(outputs.teacher_feature), dim=1)
        others = self.draw_negatives(labels, outputs.generator)
        shown = torch.cat([outputs.indices[:, None], others], dim=1)
        loss = self._side(student, 1, shown) + self._side(teacher, 0, shown)
        self._remember(torch.stack([student, teacher]).detach(), outputs.indices)
        return loss

    def draw_negatives(self, labels: Tensor, generator: torch.Generator | None) -> Tensor:
        """Draw rows (B, K) of the train split uniformly and with replacement, never from the sample's own class."""
        sizes, starts = self.class_size[labels][:, None], self.class_start[labels][:, None]
        others = len(self.by_class) - sizes
        drawn = torch.rand(len(labels), self.negatives, generator=generator, device=labels.device, dtype=torch.float64)
        position = (drawn * others).long()
        # Positions index the samples sorted by class, skipping the sample's own class.
        return self.by_class[torch.where(position >= starts, position + sizes, position)]

    def _side(self, embedding: Tensor, other: int, shown: Tensor) -> Tensor:
        # The gradient depends on the memory, which is updated before the step's backward pass. Computing the gradient
        # here, and returning a product with the embedding, avoids a copy of the memory.
        here = embedding.detach().requires_grad_()
        with torch.enable_grad():
            loss = self._contrast(here, other, shown)
        (gradient,) = torch.autograd.grad(loss, here)
        return loss.detach() + ((embedding - here.detach()) * gradient).sum()

    def _contrast(self, embedding: Tensor, other: int, shown: Tensor) -> Tensor:
        # Compute all N products and select: a matrix product is far cheaper than gathering B (K + 1) embeddings.
        log_x = (embedding @ self.memory[other].t()).gather(1, shown) / self.temperature
        first = torch.logsumexp(log_x.detach().flatten(), 0) - math.log(log_x.numel()) + math.log(len(self.by_class))
        log_z = torch.where(self.log_z[other] == _UNKNOWN, first, self.log_z[other])
        self.log_z[other] = log_z
        # log(h / (1 - h)). Working in logarithms avoids rounding errors and needs no epsilon.
        odds = log_x - log_z - math.log(self.negatives / len(self.by_class))
        return (softplus(-odds[:, 0]) + softplus(odds[:, 1:]).sum(dim=1)).mean()

    @torch.no_grad()
    def _remember(self, embeddings: Tensor, indices: Tensor) -> None:
        kept = self.momentum * self.memory[:, indices] + (1 - self.momentum) * embeddings
        self.memory.index_copy_(1, indices, normalize(kept, dim=2))


def contrastive_memory(
    setting: PartsSetting, *, crd_dim: int, crd_negatives: int, crd_temperature: float, crd_momentum: float
) -> ContrastiveMemory:
    """Build the method's module."""
    return ContrastiveMemory(
        setting.student_dim,
        setting.teacher_dim,
        setting.labels,
        dim=crd_dim,
        negatives=crd_negatives,
        temperature=crd_temperature,
        momentum=crd_momentum,
    )


def crd_losses(outputs: StepOutputs, labels: Tensor, *, ce_weight: float, kd_weight: float) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · the contrastive loss of both sides.

    Args:
        outputs: step outputs with `student_logits` (B, C), both features, `indices`, `generator`, and the memory in
            `parts`.
        labels: (B,) int64.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the contrastive loss.

    Returns:
        Loss parts `total`, `ce` and `kd`.

    Source:
        Tian, Krishnan and Isola, "Contrastive Representation Distillation" (2020). The memory, the negatives from other
        classes, Z from the first batch, and training the embeddings with the student's optimiser follow the paper's
        code. Ours: every batch draws fresh negatives with replacement, and the losses are computed in logarithms
        without an epsilon. The batch is multiplied by the whole memory, and the negatives are selected from the
        products. The FLOPs in the cost ledger are therefore proportional to N instead of K, and all count as forward
        FLOPs.
    """
    assert isinstance(outputs.parts, ContrastiveMemory)
    kd = outputs.parts(outputs, labels)
    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["crd"], crd_losses, parts=contrastive_memory)
