"""Adapter with a method without teacher logits in the loss, as in PESF-KD's vision code."""

from torch import Tensor

from trainables.losses.logits import kd_loss, swapped_kd_loss
from trainables.losses.parts import LossParts, Objective, StepOutputs
from trainables.spec.methods.pesf_variants import PesfVariant


def with_adapter_term(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    losses: Objective,
    temperature: float,
    adapter_kd_weight: float,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
    pesf_variant: PesfVariant,
) -> LossParts:
    """Add adapter_kd_weight · D(z_a, z_s) + adapter_ce_weight · CE(z_a, y) to a method's losses.

    Without an adapter, nothing is added. The distance D equals the distance of `pesf_kd` with the same variant. The
    adapter's gradient comes from these two terms alone.

    Args:
        outputs: step outputs with `student_logits`, `teacher_logits` and, with an adapter, `adapted_logits`.
        labels: (B,) int64.
        losses: the method's losses.
        temperature: T, softens both sides of the distance.
        adapter_kd_weight: weight of the distance, the `-a` of PESF-KD's vision code.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy.
        detach_adapter_target: stop the distance's gradient before the adapter.
        pesf_variant: source of the distance: the paper, or the authors' vision code.

    Returns:
        The method's loss parts and, with an adapter, `adapter` and `adapter_kd`.

    Source:
        `train_distill` in cv/helper/loops.py of github.com/1170300319/PESF-KD at commit d3f6aa8: the README combines
        the adapter with `crd` by `--distill crd -a 1 -b 0.8`.
    """
    parts = losses(outputs, labels)
    if outputs.adapted_logits is None:
        return parts
    target = outputs.target_logits(detached=detach_adapter_target)
    if pesf_variant == "released-vision":
        assert outputs.teacher_logits is not None
        kd = swapped_kd_loss(outputs.student_logits, outputs.teacher_logits, target, labels, temperature=temperature)
    else:
        kd = kd_loss(outputs.student_logits, target, temperature=temperature)
    assert parts.adapter is not None
    total = parts.total + adapter_kd_weight * kd + adapter_ce_weight * parts.adapter
    return parts._replace(total=total, adapter_kd=kd)
