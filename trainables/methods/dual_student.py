"""Two students learn from one frozen teacher, weighted by the teacher's confidence, and from each other."""

import math

import torch
from torch import Tensor

from trainables.losses.logits import kd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.losses.sharpness import entropy
from trainables.methods.method import Method, weighted_sum_of_both
from trainables.spec.methods import METHOD_SPECS


def confidence(teacher_logits: Tensor) -> Tensor:
    """Compute 1 - H(softmax(z)) / log C for each sample, (B,): 0 for a uniform prediction, 1 for a certain one.

    Args:
        teacher_logits: (B, C), with C ≥ 2.
    """
    return 1 - entropy(teacher_logits) / math.log(teacher_logits.shape[1])


def confident_kd_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Compute the batch mean of the teacher's confidence times T² KL(softmax(z / T) || softmax(z_s / T)).

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C), from a frozen teacher.
        temperature: T, softens both sides of the divergence but not the confidence.

    Returns:
        Scalar; T² applied.
    """
    divergence = torch.nn.functional.kl_div(
        torch.log_softmax(student_logits / temperature, dim=1),
        torch.log_softmax(teacher_logits / temperature, dim=1),
        reduction="none",
        log_target=True,
    ).sum(dim=1)
    return (confidence(teacher_logits) * divergence).mean() * temperature**2


def dual_student_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    dual_student_peer_weight: float,
) -> LossParts:
    """Compute ce_weight · CE + kd_weight · (teacher loss + peer weight · peer loss) for each of the two students.

    The teacher loss is `confident_kd_loss`. The peer loss is T² KL(softmax(z' / T) || softmax(z / T)), with the other
    student's logits z' as constants. One step updates both students, using logits computed before the update.

    Args:
        outputs: step outputs with `student_logits`, `peer_logits` and `teacher_logits`, each (B, C).
        labels: (B,) int64.
        temperature: T, softens both sides of the divergences.
        ce_weight: weight of each student's cross-entropy.
        kd_weight: weight of each student's distillation loss.
        dual_student_peer_weight: weight of the peer loss within the distillation loss; the teacher loss has weight 1.

    Returns:
        Loss parts `total`, for both students; `ce` and `kd`, for the first student; and `peer`.

    Source:
        Gore, Dey and Mishra, "Uncertainty-Aware Dual-Student Knowledge Distillation for Efficient Image Classification"
        (2025), with the paper's weight 1 - H / log C, here on unsoftened probabilities. Only the abstract was
        available, so the weights between the parts are ours. One architecture for both students is ours too; the
        paper uses two architectures.
    """
    assert outputs.peer_logits is not None
    student, peer, teacher = outputs.student_logits, outputs.peer_logits, outputs.target_logits()

    def loss_of(own: Tensor, other: Tensor) -> Tensor:
        from_peer = kd_loss(own, other.detach(), temperature=temperature)
        return confident_kd_loss(own, teacher, temperature=temperature) + dual_student_peer_weight * from_peer

    both = loss_of(student, peer), loss_of(peer, student)
    return weighted_sum_of_both(outputs, labels, *both, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["dual_student"], dual_student_losses)
