"""Distillation losses as pure functions of logits.

B samples in the batch, C classes. Logs are natural; a loss is the mean over the batch, a scalar tensor.
"""

from typing import Final

import torch
from torch import Tensor

_SMALL: Final = 1e-8


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Divergence of the student's softened prediction from the teacher's, T² · KL(teacher || student).

    Gradient flows into both arguments: a caller that wants a constant target detaches it.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C), adapted or not.
        temperature: divides both; its square scales the result, so that the gradient's size hardly depends on
            it.

    Returns:
        Scalar: summed over classes, mean over the batch, T² applied; 0 where both predict the same.

    Source:
        Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2, as the
        Kullback-Leibler divergence rather than the cross-entropy: the teacher's entropy is subtracted, which
        matters once the target is trained too.
    """
    divergence = torch.nn.functional.kl_div(
        torch.log_softmax(student_logits / temperature, dim=1),
        torch.log_softmax(teacher_logits / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return divergence * temperature**2


def probability_mse_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Squared distance of the softened predictions, T² · mean over samples and classes of (p_t - p_s)².

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C), adapted or not; gradient flows into it too.
        temperature: divides both.

    Returns:
        Scalar in [0, 2 T² / C]; T² applied; 0 where both predict the same.

    Source:
        Rao et al., "Parameter-Efficient and Student-Friendly Knowledge Distillation" (2022), the distance of its
        language experiments. Temperature and T² are ours, as for `kd_loss`: at temperature 1 they change nothing.
    """
    student = torch.softmax(student_logits / temperature, dim=1)
    teacher = torch.softmax(teacher_logits / temperature, dim=1)
    return torch.nn.functional.mse_loss(student, teacher) * temperature**2


def dkd_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float, alpha: float, beta: float
) -> Tensor:
    """Decoupled distillation, T² · (alpha · TCKD + beta · NCKD).

    With p_y the softened probability of the label, TCKD is the divergence between the two pairs (p_y, 1 - p_y), and
    NCKD that between the distributions over the other classes alone. `kd_loss` is T² (TCKD + (1 - p_y) NCKD), with
    the teacher's p_y of each sample.

    Args:
        student_logits: (B, C), C at least 2.
        teacher_logits: (B, C), adapted or not; gradient flows into it too.
        labels: (B,) int64.
        temperature: divides both.
        alpha: weight of TCKD.
        beta: weight of NCKD.

    Returns:
        Scalar, mean over the batch; 0 where both predict the same.

    Source:
        Zhao et al., "Decoupled Knowledge Distillation" (2022). The label's class is left out of NCKD
        exactly, where its code lowers that class's logit by 1,000.
    """
    target, others = [], []
    for logits in (student_logits, teacher_logits):
        log_p = torch.log_softmax(logits / temperature, dim=1)
        rest = _without_label(log_p, labels)
        log_rest = torch.logsumexp(rest, dim=1, keepdim=True)
        target.append(torch.cat([log_p.gather(1, labels[:, None]), log_rest], dim=1))
        others.append(rest - log_rest)
    loss = alpha * _divergence(*target) + beta * _divergence(*others)
    return loss.mean() * temperature**2


def dist_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, beta: float, gamma: float
) -> Tensor:
    """Relations instead of values, T² · (beta · mean(1 - r of rows) + gamma · mean(1 - r of columns)).

    r is Pearson's correlation of the student's and the teacher's softened probabilities: of one sample over the
    classes (rows), and of one class over the batch (columns). Any p_t = a p_s + b with a > 0 costs nothing.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C), adapted or not; gradient flows into it too.
        temperature: divides both.
        beta: weight of the rows.
        gamma: weight of the columns.

    Returns:
        Scalar in [0, 2 T² (beta + gamma)]; a row or column without any variation counts as uncorrelated.

    Source:
        Huang et al., "Knowledge Distillation from A Stronger Teacher" (2022); T² as its code has.
    """
    student = torch.softmax(student_logits / temperature, dim=1)
    teacher = torch.softmax(teacher_logits / temperature, dim=1)
    rows = 1 - _correlation(student, teacher).mean()
    columns = 1 - _correlation(student.t(), teacher.t()).mean()
    return (beta * rows + gamma * columns) * temperature**2


def standardised_kd_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """`kd_loss` of logits that are standardised row by row: centred, and divided by their standard deviation.

    Only the shape of a sample's logits is matched: shift and scale of either side change nothing.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C), adapted or not; gradient flows into it too, through its deviation as well.
        temperature: divides the standardised logits of both.

    Returns:
        Scalar, mean over the batch, T² applied; 0 where the standardised logits agree.

    Source:
        Sun et al., "Logit Standardization in Knowledge Distillation" (2024), algorithm 1, with the deviation that
        divides by C as in the paper; its code divides by C - 1, which is a temperature lower by √((C - 1) / C).
    """
    return kd_loss(_standardised(student_logits), _standardised(teacher_logits), temperature=temperature)


def atkd_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Each row at a temperature of its own that gives student and teacher the same sharpness, to second order.

    For logits z with mean 0 over C classes and deviation σ, the sharpness log Σ exp(z / τ) is about
    log C + σ² / 2τ². So τ = temperature · σ, each side with its own σ, makes it equal. The temperatures are numbers:
    no gradient flows through them. The divergence is scaled by the student's τ², as T² does for equal temperatures.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C), without gradient.
        temperature: in units of a row's standard deviation.

    Returns:
        Scalar, mean over the batch; 0 where the standardised logits agree.

    Source:
        Guo, "Reducing the Teacher-Student Gap via Adaptive Temperatures" (2022). What its abstract leaves open (the
        deviation of each sample, the scale by the student's τ² and not the teacher's) is ours.
    """
    scale = temperature * _deviation(student_logits.detach())
    student = student_logits / scale
    teacher = teacher_logits / (temperature * _deviation(teacher_logits.detach()))
    divergence = _divergence(torch.log_softmax(student, dim=1), torch.log_softmax(teacher, dim=1))
    return (divergence * scale.squeeze(1) ** 2).mean()


def ttm_loss(student_logits: Tensor, teacher_logits: Tensor, *, gamma: float, weighted: bool = False) -> Tensor:
    """Divergence of the untempered student from the teacher's probabilities raised to a power, p^γ / Σ p^γ.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C).
        gamma: the exponent; as a temperature of the teacher alone it is 1 / γ.
        weighted: weigh each sample by its Σ p^γ, from 1 where the teacher is certain to C^(1 - γ) where it is not.

    Returns:
        Scalar, mean over the batch, no T²; 0 where the student predicts the transformed distribution.

    Source:
        Zheng and Yang, "Knowledge Distillation Based on Transformed Teacher Matching" (2024), appendix A.3.
    """
    powers = gamma * torch.log_softmax(teacher_logits, dim=1)
    log_sum = torch.logsumexp(powers, dim=1)
    divergence = _divergence(torch.log_softmax(student_logits, dim=1), powers - log_sum[:, None])
    return (log_sum.exp() * divergence if weighted else divergence).mean()


def _divergence(log_student: Tensor, log_teacher: Tensor) -> Tensor:
    """KL(teacher || student) of each row, (B,)."""
    return (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1)


def _without_label(values: Tensor, labels: Tensor) -> Tensor:
    """(B, C - 1): each row without its label's column. By an index, since a mask would make a GPU wait."""
    columns = torch.arange(values.shape[1] - 1, device=values.device)
    return values.gather(1, columns + (columns >= labels[:, None]))


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Pearson's correlation of each pair of rows; 0 where one of them does not vary."""
    first, second = (each - each.mean(dim=1, keepdim=True) for each in (first, second))
    return (first * second).sum(dim=1) / (first.norm(dim=1) * second.norm(dim=1) + _SMALL)


def _deviation(logits: Tensor) -> Tensor:
    """(B, 1), dividing by C. The small number keeps the gradient of a row that does not vary finite."""
    return (logits.var(dim=1, correction=0, keepdim=True) + _SMALL**2).sqrt()


def _standardised(logits: Tensor) -> Tensor:
    return (logits - logits.mean(dim=1, keepdim=True)) / _deviation(logits)
