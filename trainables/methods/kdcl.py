"""Collaborative learning: two networks learn from scratch, both from the labels and from what they say together.

Notation: z_1 and z_2 the logits (B, C) of the two networks, y the labels.
"""

from typing import Final, Literal

import torch
from torch import Tensor

from trainables.losses.logits import kd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum_of_both
from trainables.spec.methods import METHOD_SPECS

# Of 900 random batches, saturated ones among them, the worst ensemble's cross-entropy is then 1e-8 above the least.
_STEPS: Final = 20


def mean_ensemble(first: Tensor, second: Tensor) -> Tensor:
    """(z_1 + z_2) / 2."""
    return 0.5 * (first + second)


def linear_ensemble(first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
    """W · z_1 + (1 - w) · z_2, with the one w in [0, 1] whose cross-entropy over the batch is least.

    Args:
        first: (B, C).
        second: (B, C).
        labels: (B,) int64.
    """
    weight = linear_weight(first, second, labels)
    return weight * first + (1 - weight) * second


@torch.no_grad()
def linear_weight(first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
    """W of `linear_ensemble`, a scalar.

    The cross-entropy g is convex in w: with d = z_1 - z_2 and p the ensemble's probabilities, g' is the mean over the
    batch of Σ p d - d_y, and g'' the mean of d's variance under p. Newton's method looks for g' = 0 within [0, 1];
    where its step would leave what is left of that interval, or is not half as long as the one before, the interval is
    halved instead. The number of steps is fixed, so that a GPU need not be asked.

    Args:
        first: (B, C).
        second: (B, C).
        labels: (B,) int64.
    """
    start, d = second.double(), (first - second).double()
    target = d.gather(1, labels[:, None])[:, 0].mean()

    def slopes(weight: Tensor) -> tuple[Tensor, Tensor]:
        p = torch.softmax(start + weight * d, dim=1)
        mean = (p * d).sum(dim=1)
        return mean.mean() - target, (p * (d - mean[:, None]).square()).sum(dim=1).mean()

    low, high = torch.zeros_like(target), torch.ones_like(target)
    at_low, at_high = slopes(low)[0], slopes(high)[0]
    weight, moved = 0.5 * (low + high), high - low
    for _ in range(_STEPS):
        slope, curvature = slopes(weight)
        low, high = torch.where(slope <= 0, weight, low), torch.where(slope >= 0, weight, high)
        newton = weight - slope / curvature  # not a number where both networks say the same
        good = (newton >= low) & (newton <= high) & (2 * (newton - weight).abs() <= moved)
        step = torch.where(good, newton, 0.5 * (low + high))
        weight, moved = step, (step - weight).abs()
    weight = torch.where(at_low >= 0, torch.zeros_like(weight), weight)
    return torch.where(at_high <= 0, torch.ones_like(weight), weight).to(first.dtype)


def min_logit_ensemble(first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
    """For each class the lesser of both logits, each less its own logit of the right class, which so has 0.

    Args:
        first: (B, C).
        second: (B, C).
        labels: (B,) int64.
    """
    above = [logits - logits.gather(1, labels[:, None]) for logits in (first, second)]
    return torch.minimum(*above)


def kdcl_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    kdcl_ensemble: Literal["mean", "linear", "min_logit"],
) -> LossParts:
    """For each of both networks, ce_weight · CE(z, y) + kd_weight · T² KL(softmax(e / T) || softmax(z / T)).

    e is the ensemble of both networks' logits, as a constant. Both take their step at once.

    Args:
        outputs: needs `student_logits` and `peer_logits`, (B, C).
        labels: (B,) int64.
        temperature: softens both sides of the divergence.
        ce_weight: weight of each network's cross-entropy.
        kd_weight: weight of each network's divergence from the ensemble.
        kdcl_ensemble: `mean`, the plain one; `linear`, the convex combination with the least cross-entropy, one for the
            batch; `min_logit`, the least logits, measured from the right class's.

    Returns:
        The parts `total`, of both networks; `ce` and `kd`, of the student; and `peer`.

    Source:
        Guo et al., "Online Knowledge Distillation via Collaborative Learning" (2020). The mean is ours: what it
        calls naive takes, sample by sample, the network with the least cross-entropy, and is left out. So are its
        combination by errors on validation images, which here nothing learns from, and that each network sees its own
        distortion of an image: both see the same view.
    """
    assert outputs.peer_logits is not None
    student, peer = outputs.student_logits, outputs.peer_logits
    ensemble = _ensemble(student.detach(), peer.detach(), labels, kdcl_ensemble)
    kd = kd_loss(student, ensemble, temperature=temperature)
    back = kd_loss(peer, ensemble, temperature=temperature)
    return weighted_sum_of_both(outputs, labels, kd, back, ce_weight=ce_weight, kd_weight=kd_weight)


def _ensemble(first: Tensor, second: Tensor, labels: Tensor, kind: str) -> Tensor:
    if kind == "mean":
        return mean_ensemble(first, second)
    return (linear_ensemble if kind == "linear" else min_logit_ensemble)(first, second, labels)


METHOD = Method(METHOD_SPECS["kdcl"], kdcl_losses)
