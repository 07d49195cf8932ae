"""Distillation losses with separate parts for the label's class and the other classes, as pure functions of logits.

Shapes: B samples in the mini-batch, C classes. Logarithms are natural. Each loss is a scalar, averaged over the batch.
"""

from typing import Final

import torch
from torch import Tensor

from trainables.losses.logits import divergence, without_label

_HIDDEN: Final = -1e9  # logit of a class left out of a softmax; finite, so a row may hide all classes


def nkd_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float, gamma: float
) -> Tensor:
    """Compute the normalised distillation loss, -t_y · log s_y + gamma · T² · KL(t' || s').

    t_y and s_y are the probabilities of the label at temperature 1. t' and s' are the distributions over the other
    C - 1 classes at temperature T. No gradient flows into t_y.

    Args:
        student_logits: (B, C), C at least 2.
        teacher_logits: (B, C), adapted or not. Gradients flow into them too, through the other classes.
        labels: (B,) int64.
        temperature: T, divides the logits of the other classes.
        gamma: weight of the other classes.

    Returns:
        Scalar, averaged over the batch, T² applied. Positive if both predictions are equal, because the label's part
        is a weighted cross-entropy.

    Source:
        Yang et al., "From Knowledge Distillation to Self-Knowledge Distillation: A Unified Approach with Normalized
        Loss and Customized Soft Labels" (2023), as in mmcls/models/dis_losses/nkd.py of github.com/yzd-v/cls_KD at
        commit 1e5d48f. There, the part of the other classes is a cross-entropy. Ours is a divergence: it is lower by
        gamma · T² times the entropy of t'. Gradients differ only for adapted logits, which the cross-entropy sharpens.
    """
    rests = (without_label(each / temperature, labels) for each in (student_logits, teacher_logits))
    others = divergence(*(torch.log_softmax(each, dim=1) for each in rests))
    return gamma * temperature**2 * others.mean() + confident_cross_entropy(student_logits, teacher_logits, labels)


def confident_cross_entropy(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
    """Compute the cross-entropy with the labels, each weighted by the teacher's confidence in the label.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C). No gradient flows into them.
        labels: (B,) int64.

    Returns:
        Scalar, averaged over the batch.
    """
    own = labels[:, None]
    log_student = torch.log_softmax(student_logits, dim=1).gather(1, own)
    confidence = torch.softmax(teacher_logits, dim=1).gather(1, own).detach()
    return -(confidence * log_student).mean()


def rld_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float, alpha: float, beta: float
) -> Tensor:
    """Compute the refined distillation loss, T² · (alpha · SCD + beta · MCD).

    SCD is the KL divergence between two binary distributions: the teacher's confidence in the teacher's prediction, and
    the student's confidence in the label. MCD is the KL divergence over the classes with a lower teacher logit than the
    label. If the teacher is wrong, the student thus learns neither the wrong prediction nor the other classes ranked
    above the label.

    Args:
        student_logits: (B, C), C at least 2.
        teacher_logits: (B, C), adapted or not. Gradients flow into them too.
        labels: (B,) int64.
        temperature: T, divides both logits.
        alpha: weight of SCD.
        beta: weight of MCD.

    Returns:
        Scalar, averaged over the batch, T² applied. 0 if both predictions are equal and the teacher predicts all
        labels. MCD of a sample is 0 if no class has a lower teacher logit than the label, and if one has.

    Source:
        Sun et al., "Knowledge Distillation with Refined Logits" (2024), as in mdistiller/distillers/RLD.py of
        github.com/zju-SWJ/RLD at commit d54578f. The code can give SCD a separate temperature. Ours equals the
        temperature of MCD, as in the code's `--same-t`. We take the logarithms of SCD without rounding a probability to
        0.
    """
    student, teacher = student_logits / temperature, teacher_logits / temperature
    confidence = divergence(_against_the_rest(student, labels), _against_the_rest(teacher, teacher.argmax(dim=1)))
    hidden = teacher_logits >= teacher_logits.gather(1, labels[:, None])
    correlation = divergence(
        *(torch.log_softmax(each.masked_fill(hidden, _HIDDEN), dim=1) for each in (student, teacher))
    )
    return (alpha * confidence + beta * correlation).mean() * temperature**2


def pld_loss(student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float) -> Tensor:
    """Compute the weighted Plackett-Luce loss of one ranking: the label first, then the classes as the teacher ranks.

    With classes π_1 (the label) to π_C, the loss is Σ_k t_π_k · (log Σ_(l ≥ k) exp z_π_l - z_π_k). z are the student's
    logits and t the teacher's probabilities. The first summand is a weighted cross-entropy, and the last one is 0.

    Args:
        student_logits: z, (B, C).
        teacher_logits: (B, C). No gradient flows into them.
        labels: (B,) int64.
        temperature: divides the teacher's logits in t alone.

    Returns:
        Scalar, averaged over the batch, without T². Classes with equal teacher logits are ranked by index.

    Source:
        Bassam, Zhu and Bian, "PLD: A Choice-Theoretic List-Wise Knowledge Distillation" (2025), section 4.2 and
        appendix C. The order of equal logits is ours; there, an unstable sort decides.
    """
    teacher = teacher_logits.detach()
    own = labels[:, None]
    order = teacher.scatter(1, own, float("inf")).argsort(dim=1, descending=True, stable=True)
    ranked = student_logits.gather(1, order)
    left = ranked.flip(1).logcumsumexp(dim=1).flip(1)
    weights = torch.softmax(teacher / temperature, dim=1).gather(1, order)
    return (weights * (left - ranked)).sum(dim=1).mean()


def _against_the_rest(logits: Tensor, classes: Tensor) -> Tensor:
    """Compute the logarithms of a class's probability and of the other classes' total, (B, 2)."""
    log_p = torch.log_softmax(logits, dim=1)
    rest = torch.logsumexp(without_label(log_p, classes), dim=1, keepdim=True)
    return torch.cat([log_p.gather(1, classes[:, None]), rest], dim=1)
