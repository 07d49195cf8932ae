"""Two students of one frozen teacher, which listen to it the more the surer it is, and to each other."""

import math

import torch
from torch import Tensor

from trainables.losses.logits import kd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.losses.sharpness import entropy
from trainables.methods.method import Method, weighted_sum_of_both
from trainables.spec.methods import METHOD_SPECS


def confidence(teacher_logits: Tensor) -> Tensor:
    """1 - H(softmax(z)) / log C of each sample, (B,): 0 where all classes are alike, 1 where one is certain.

    Args:
        teacher_logits: (B, C), C of 2 or more.
    """
    return 1 - entropy(teacher_logits) / math.log(teacher_logits.shape[1])


def confident_kd_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Mean over the batch of the teacher's confidence times T² KL(softmax(z / T) || softmax(z_s / T)).

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C), of a frozen teacher.
        temperature: softens both sides of the divergence, and not the confidence.

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
    """For each of both students, ce_weight · CE + kd_weight · (the teacher's share + peer weight · the other's share).

    The teacher's share is `confident_kd_loss`, the other student's T² KL(softmax(z' / T) || softmax(z / T)), with its
    logits z' as constants. Both take their step at once, on logits from before it.

    Args:
        outputs: needs `student_logits`, `peer_logits` and `teacher_logits`, (B, C).
        labels: (B,) int64.
        temperature: softens both sides of the divergences.
        ce_weight: weight of each student's cross-entropy.
        kd_weight: weight of what each student is taught.
        dual_student_peer_weight: of the other student's share in that, beside the teacher's 1.

    Returns:
        The parts `total`, of both students; `ce` and `kd`, of the first; and `peer`.

    Source:
        Gore, Dey and Mishra, "Uncertainty-Aware Dual-Student Knowledge Distillation for Efficient Image
        Classification" (2025): its weight 1 - H / log C, of unsoftened probabilities here. Only its abstract was at
        hand; the weights between the parts are ours, and so is that both students have one architecture, where it has
        two.
    """
    assert outputs.peer_logits is not None
    student, peer, teacher = outputs.student_logits, outputs.peer_logits, outputs.taught_by()

    def taught(own: Tensor, other: Tensor) -> Tensor:
        from_peer = kd_loss(own, other.detach(), temperature=temperature)
        return confident_kd_loss(own, teacher, temperature=temperature) + dual_student_peer_weight * from_peer

    both = taught(student, peer), taught(peer, student)
    return weighted_sum_of_both(outputs, labels, *both, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["dual_student"], dual_student_losses)
