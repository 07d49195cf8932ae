"""Contrastive representation distillation: student and teacher recognise a sample by each other's view of it.

Notation: N samples in the train split, K negatives for each of B samples, d the dimension of the embeddings. Each side
has a linear embedding of its feature, and a memory with its latest embedding of every sample. With x = exp(u · m / τ),
u one side's embedding of a sample and m the other side's memory of a sample, and Z a constant that makes x / Z about a
probability over the train split, h = (x / Z) / (x / Z + K / N) is how sure u is that m is of the same sample. The loss
of a side is -log h for the sample itself, and the sum of -log(1 - h) over the negatives.
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
    """Embeddings of both sides, what they remember, and the negatives of a sample: those of other classes.

    Args:
        student_dim: width of the student's feature.
        teacher_dim: width of the teacher's.
        labels: (N,) int64, of the train split.
        dim: d.
        negatives: K.
        temperature: τ.
        momentum: share of the old embedding in what is remembered.
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
        # They follow from the data, and stay out of the checkpoint.
        self.register_buffer("by_class", torch.argsort(labels, stable=True), persistent=False)
        self.register_buffer("class_start", sizes.cumsum(0) - sizes, persistent=False)
        self.register_buffer("class_size", sizes, persistent=False)

    def forward(self, outputs: StepOutputs, labels: Tensor) -> Tensor:
        """The loss of a batch, scalar; the memory takes the batch in, so that a second call gives another value.

        Args:
            outputs: needs both features, `indices` and `generator`.
            labels: (B,) int64.
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
        """Rows (B, K) of the train split, each of another class than its sample's, evenly and with replacement."""
        sizes, starts = self.class_size[labels][:, None], self.class_start[labels][:, None]
        others = len(self.by_class) - sizes
        drawn = torch.rand(len(labels), self.negatives, generator=generator, device=labels.device, dtype=torch.float64)
        position = (drawn * others).long()
        # Positions run over the samples by class, with the sample's own class left out.
        return self.by_class[torch.where(position >= starts, position + sizes, position)]

    def _side(self, embedding: Tensor, other: int, shown: Tensor) -> Tensor:
        # The loss's gradient is computed here and handed on as a product with the embedding: the memory, which it
        # depends on, may then be written over before the step's backward pass, and need not be copied.
        here = embedding.detach().requires_grad_()
        with torch.enable_grad():
            loss = self._contrast(here, other, shown)
        (gradient,) = torch.autograd.grad(loss, here)
        return loss.detach() + ((embedding - here.detach()) * gradient).sum()

    def _contrast(self, embedding: Tensor, other: int, shown: Tensor) -> Tensor:
        # All N products and a choice among them: a matrix product is far cheaper than gathering B (K + 1) embeddings.
        log_x = (embedding @ self.memory[other].t()).gather(1, shown) / self.temperature
        first = torch.logsumexp(log_x.detach().flatten(), 0) - math.log(log_x.numel()) + math.log(len(self.by_class))
        log_z = torch.where(self.log_z[other] == _UNKNOWN, first, self.log_z[other])
        self.log_z[other] = log_z
        # log of h / (1 - h); in logarithms nothing is lost to rounding, and no small number is needed.
        odds = log_x - log_z - math.log(self.negatives / len(self.by_class))
        return (softplus(-odds[:, 0]) + softplus(odds[:, 1:]).sum(dim=1)).mean()

    @torch.no_grad()
    def _remember(self, embeddings: Tensor, indices: Tensor) -> None:
        kept = self.momentum * self.memory[:, indices] + (1 - self.momentum) * embeddings
        self.memory.index_copy_(1, indices, normalize(kept, dim=2))


def contrastive_memory(
    setting: PartsSetting, *, crd_dim: int, crd_negatives: int, crd_temperature: float, crd_momentum: float
) -> ContrastiveMemory:
    """The parts of the method."""
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
    """ce_weight · CE(z_s, y) + kd_weight · the contrastive loss of both sides.

    Args:
        outputs: needs `student_logits` (B, C), both features, `indices`, `generator` and the memory in `parts`.
        labels: (B,) int64.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the contrastive loss.

    Returns:
        The parts `total`, `ce` and `kd`.

    Source:
        Tian, Krishnan and Isola, "Contrastive Representation Distillation" (2020), with the memory, the negatives of
        other classes and the Z of the first batch of its code. Ours: negatives are drawn anew for every batch and with
        replacement, and the losses are computed in logarithms instead of with a small number added. A batch is
        multiplied by the whole memory, and its negatives are chosen from the products, so the FLOPs that the cost
        ledger counts are in proportion to N and not to K, all of them as forward ones. The embeddings learn by the
        student's optimiser, as there.
    """
    assert isinstance(outputs.parts, ContrastiveMemory)
    kd = outputs.parts(outputs, labels)
    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["crd"], crd_losses, parts=contrastive_memory)
