"""Wasserstein distillation of logits: predictions are compared across classes, by the cost to move probability."""

import math

from torch import Tensor

from trainables.losses.parts import LossParts, StepOutputs
from trainables.losses.transport import wkd_loss
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS


def wkd_l_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    wkd_weight: float,
    wkd_sharpening: float,
    wkd_decay_start: float,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · (-t_y log s_y + w · wkd_weight · W(s', t')).

    t_y and s_y are the label's probabilities, t' and s' the distributions over the other classes, and W the cost to
    transport one to the other. The factor w is 1 at first and then falls to 0 as half a cosine. With an adapter,
    adapter_ce_weight · CE(z_a, y) is added, and t' comes from the adapted logits. So does t_y, as a constant: a
    gradient through t_y would lower the adapted teacher's confidence in every label.

    Args:
        outputs: step outputs with `class_distances`, `student_logits`, and `teacher_logits` or `adapted_logits`.
        labels: (B,) int64.
        temperature: T, softens the other classes of both sides.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of both parts together.
        wkd_weight: weight of the transport.
        wkd_sharpening: factor of the classes' distances in the cost of the transport.
        wkd_decay_start: share of the trial's epochs after which w falls; 1 keeps it at 1.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy.
        detach_adapter_target: stop the distillation loss's gradient before the adapter.

    Returns:
        Loss parts `total`, `ce`, `kd` (with w) and, with an adapter, `adapter`.

    Source:
        Lv, Yang and Li, "Wasserstein Distance Rivals Kullback-Leibler Divergence for Knowledge Distillation" (2024).
        The code decays after epoch 150 of 240, and w is 0 in the last epoch. Ours falls from one epoch later on, so the
        transport has some weight in every epoch of a short trial. The adapter is ours.
    """
    assert outputs.class_distances is not None
    kd = wkd_loss(
        outputs.student_logits,
        outputs.target_logits(detached=detach_adapter_target),
        labels,
        outputs.class_distances,
        temperature=temperature,
        weight=wkd_weight * decay_factor(outputs.epoch, outputs.epochs, start=wkd_decay_start),
        sharpening=wkd_sharpening,
    )
    return weighted_sum(
        outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight, adapter_ce_weight=adapter_ce_weight
    )


def decay_factor(epoch: int, epochs: int, *, start: float) -> float:
    """Return the transport's factor in an epoch: 1 at first, then half a cosine towards 0.

    Args:
        epoch: counted from 0.
        epochs: number of epochs in the trial.
        start: share of the epochs after which the factor falls.
    """
    if epoch <= start * epochs:
        return 1.0
    return 0.5 + 0.5 * math.cos(math.pi * (epoch / epochs - start) / (1 - start))


METHOD = Method(METHOD_SPECS["wkd_l"], wkd_l_losses)
