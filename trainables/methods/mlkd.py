"""Multi-level logit distillation: samples, pairs of samples and pairs of classes, at five temperatures."""

from torch import Tensor

from trainables.losses.levels import mlkd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS


def mlkd_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    mlkd_batch_weight: float,
    mlkd_class_weight: float,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · the sum of the three levels over five temperatures.

    With an adapter, adapter_ce_weight · CE(z_a, y) is added, and all levels use the adapted logits.

    Args:
        outputs: step outputs with `student_logits`, and `teacher_logits` or `adapted_logits`; each (B, C).
        labels: (B,) int64.
        temperature: mean of the five temperatures.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of all levels together.
        mlkd_batch_weight: weight of the relations between the samples of a batch.
        mlkd_class_weight: weight of the relations between the classes.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy.
        detach_adapter_target: stop the distillation loss's gradient before the adapter.

    Returns:
        Loss parts `total`, `ce`, `kd` and, with an adapter, `adapter`.

    Source:
        Jin, Wang and Lin, "Multi-Level Logit Distillation" (2023), without the second view of each image; `mlkd_loss`
        lists the differences. The adapter is ours.
    """
    target_logits = outputs.target_logits(detached=detach_adapter_target)
    kd = mlkd_loss(
        outputs.student_logits,
        target_logits,
        temperature=temperature,
        batch_weight=mlkd_batch_weight,
        class_weight=mlkd_class_weight,
    )
    return weighted_sum(
        outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight, adapter_ce_weight=adapter_ce_weight
    )


METHOD = Method(METHOD_SPECS["mlkd"], mlkd_losses)
