"""Collaborative learning: two networks learn from scratch, from the labels and from an ensemble of their logits.

Notation: z_1 and z_2 are the logits (B, C) of the two networks, y the labels.
"""

from typing import Final

import torch
from torch import Tensor

from trainables.losses.logits import kd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum_of_both
from trainables.spec.methods import METHOD_SPECS
from trainables.spec.methods.trained_networks import Ensemble

# Measured on 900 random batches, some saturated: the cross-entropy is at most 1e-8 above the minimum.
_STEPS: Final = 20


def mean_ensemble(first: Tensor, second: Tensor) -> Tensor:
    """Compute (z_1 + z_2) / 2."""
    return 0.5 * (first + second)


def linear_ensemble(first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
    """Compute w · z_1 + (1 - w) · z_2, with the w in [0, 1] that minimises the cross-entropy over the batch.

    Args:
        first: (B, C), z_1.
        second: (B, C), z_2.
        labels: (B,) int64.
    """
    weight = linear_weight(first, second, labels)
    return weight * first + (1 - weight) * second


@torch.no_grad()
def linear_weight(first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
    """Compute the weight w of `linear_ensemble`, a scalar.

    The cross-entropy g is convex in w. Let d = z_1 - z_2, and let p be the ensemble's probabilities. Then g' is the
    batch mean of (Σ p d) - d_y, and g'' is the batch mean of the variance of d under p. Newton's method solves g' = 0
    within [0, 1]. Bisection replaces a Newton step outside the current bracket, or longer than half the previous step.
    The number of steps is fixed, so no step has to wait for a GPU result.

    Args:
        first: (B, C), z_1.
        second: (B, C), z_2.
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
        newton = weight - slope / curvature  # NaN if both networks predict the same
        good = (newton >= low) & (newton <= high) & (2 * (newton - weight).abs() <= moved)
        step = torch.where(good, newton, 0.5 * (low + high))
        weight, moved = step, (step - weight).abs()
    weight = torch.where(at_low >= 0, torch.zeros_like(weight), weight)
    return torch.where(at_high <= 0, torch.ones_like(weight), weight).to(first.dtype)


def min_logit_ensemble(first: Tensor, second: Tensor, labels: Tensor) -> Tensor:
    """Compute the smaller of both logits of each class, after shifting each row so that the true class has logit 0.

    Args:
        first: (B, C), z_1.
        second: (B, C), z_2.
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
    kdcl_ensemble: Ensemble,
) -> LossParts:
    """Compute ce_weight · CE(z, y) + kd_weight · T² KL(softmax(e / T) || softmax(z / T)) for each of the two networks.

    e is the ensemble of both networks' logits, treated as a constant. One step updates both networks.

    Args:
        outputs: step outputs with `student_logits` and `peer_logits`, both (B, C).
        labels: (B,) int64.
        temperature: T, softens both sides of the divergence.
        ce_weight: weight of each network's cross-entropy.
        kd_weight: weight of each network's divergence from the ensemble.
        kdcl_ensemble: `mean`, the plain mean; `linear`, the convex combination with the lowest cross-entropy, one
            weight per batch; `min_logit`, the minimum logits relative to the true class.

    Returns:
        Loss parts `total`, for both networks; `ce` and `kd`, for the student; and `peer`.

    Source:
        Guo et al., "Online Knowledge Distillation via Collaborative Learning" (2020). The mean is ours. Three parts of
        the paper are left out: the naive ensemble, which picks the network with the lowest cross-entropy for each
        sample; the combination by validation errors, since no training here uses validation images; and a separate
        distortion of the image for each network. Both networks see the same view.
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
