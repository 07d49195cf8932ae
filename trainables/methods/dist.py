"""DIST: the student matches the teacher's relations between classes and between samples, instead of exact values."""

from torch import Tensor

from trainables.losses.logits import dist_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS


def dist_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    dist_beta: float,
    dist_gamma: float,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · T² (dist_beta · inter + dist_gamma · intra).

    With an adapter, adapter_ce_weight · CE(z_a, y) is added, and the relations use the adapted logits.

    Args:
        outputs: step outputs with `student_logits`, and `teacher_logits` or `adapted_logits`; each (B, C).
        labels: (B,) int64.
        temperature: T, softens both sides.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of both relations together.
        dist_beta: weight of `inter`, the relations between the classes of a sample.
        dist_gamma: weight of `intra`, the relations between the samples of a batch, for each class.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy.
        detach_adapter_target: stop the distillation loss's gradient before the adapter.

    Returns:
        Loss parts `total`, `ce`, `kd` and, with an adapter, `adapter`.

    Source:
        Huang et al., "Knowledge Distillation from A Stronger Teacher" (2022). The adapter is ours.
    """
    target_logits = outputs.target_logits(detached=detach_adapter_target)
    kd = dist_loss(outputs.student_logits, target_logits, temperature=temperature, beta=dist_beta, gamma=dist_gamma)
    return weighted_sum(
        outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight, adapter_ce_weight=adapter_ce_weight
    )


METHOD = Method(METHOD_SPECS["dist"], dist_losses)
