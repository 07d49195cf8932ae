"""Distillation losses as pure functions of logits.

Shapes: B samples in the mini-batch, C classes. Logarithms are natural. Each loss is a scalar, averaged over the batch.
"""

from typing import Final

import torch
from torch import Tensor

_SMALL: Final = 1e-8
_LEAST_TOP: Final = 0.1  # see `dtkd_loss`


def kd_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Compute the KL divergence between softened predictions, T² · KL(teacher || student).

    Gradients flow into both arguments. Detach the teacher logits for a constant target.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C), adapted or not.
        temperature: divides both logits. The result is scaled by T², so the gradient magnitude hardly depends on T.

    Returns:
        Scalar, summed over classes and averaged over the batch, T² applied. 0 if both predictions are equal.

    Source:
        Hinton, Vinyals and Dean, "Distilling the Knowledge in a Neural Network" (2015), section 2. We use the
        Kullback-Leibler divergence instead of the cross-entropy. They differ by the teacher's entropy, which matters
        once the target is trained too.
    """
    mean = torch.nn.functional.kl_div(
        torch.log_softmax(student_logits / temperature, dim=1),
        torch.log_softmax(teacher_logits / temperature, dim=1),
        reduction="batchmean",
        log_target=True,
    )
    return mean * temperature**2


def probability_mse_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Compute the squared distance of softened predictions, T² · mean over samples and classes of (p_t - p_s)².

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C), adapted or not. Gradients flow into them too.
        temperature: divides both logits.

    Returns:
        Scalar in [0, 2 T² / C], T² applied. 0 if both predictions are equal.

    Source:
        Rao et al., "Parameter-Efficient and Student-Friendly Knowledge Distillation" (2022), the distance used in the
        language experiments. Temperature and T² are ours, as in `kd_loss`. They have no effect at temperature 1.
    """
    student = torch.softmax(student_logits / temperature, dim=1)
    teacher = torch.softmax(teacher_logits / temperature, dim=1)
    return torch.nn.functional.mse_loss(student, teacher) * temperature**2


def swapped_kd_loss(
    student_logits: Tensor, teacher_logits: Tensor, adapted_logits: Tensor, labels: Tensor, *, temperature: float
) -> Tensor:
    """Compute the distance of PESF-KD's vision code, T² (KL(swap(teacher) || student) + KL(adapted || swap(student))).

    swap exchanges the largest logit of a row and the label's logit. Both swapped sides are constants. The student
    therefore learns from the corrected frozen teacher, and the adapted teacher from the corrected student.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C), logits of the frozen teacher.
        adapted_logits: (B, C), logits of the adapted teacher.
        labels: (B,) int64.
        temperature: divides all logits.

    Returns:
        Scalar, averaged over the batch, T² applied. 0 if all three predict the labels and are equal.

    Source:
        Rao et al. (2022), `train_distill` in cv/helper/loops.py of github.com/1170300319/PESF-KD at commit d3f6aa8. The
        logarithm of the target is exact here. There, a probability that underflows to 0 adds 0.
    """
    teacher, student = (swap_top_and_label(each.detach(), labels) for each in (teacher_logits, student_logits))
    return kd_loss(student_logits, teacher, temperature=temperature) + kd_loss(
        student, adapted_logits, temperature=temperature
    )


def swap_top_and_label(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the logits (B, C) with the largest logit of each row and the logit of the label exchanged."""
    top, own = logits.argmax(dim=1, keepdim=True), labels[:, None]
    swapped = logits.scatter(1, top, logits.gather(1, own))
    return swapped.scatter(1, own, logits.gather(1, top))


def dkd_loss(
    student_logits: Tensor, teacher_logits: Tensor, labels: Tensor, *, temperature: float, alpha: float, beta: float
) -> Tensor:
    """Compute the decoupled distillation loss, T² · (alpha · TCKD + beta · NCKD).

    Let p_y be the softened probability of the label. TCKD is the KL divergence between the two binary distributions
    (p_y, 1 - p_y). NCKD is the KL divergence between the distributions over the other C - 1 classes. For comparison,
    `kd_loss` of a sample is T² · (TCKD + (1 - p_y) · NCKD), where p_y is the teacher's.

    Args:
        student_logits: (B, C), C at least 2.
        teacher_logits: (B, C), adapted or not. Gradients flow into them too.
        labels: (B,) int64.
        temperature: divides both logits.
        alpha: weight of TCKD.
        beta: weight of NCKD.

    Returns:
        Scalar, averaged over the batch. 0 if both predictions are equal.

    Source:
        Zhao et al., "Decoupled Knowledge Distillation" (2022). We exclude the label's class from NCKD exactly. The
        paper's code lowers the logit of this class by 1,000 instead.
    """
    target, others = [], []
    for logits in (student_logits, teacher_logits):
        log_p = torch.log_softmax(logits / temperature, dim=1)
        rest = without_label(log_p, labels)
        log_rest = torch.logsumexp(rest, dim=1, keepdim=True)
        target.append(torch.cat([log_p.gather(1, labels[:, None]), log_rest], dim=1))
        others.append(rest - log_rest)
    loss = alpha * divergence(*target) + beta * divergence(*others)
    return loss.mean() * temperature**2


def dist_loss(
    student_logits: Tensor, teacher_logits: Tensor, *, temperature: float, beta: float, gamma: float
) -> Tensor:
    """Compute the relational loss of DIST, T² · (beta · mean(1 - r of rows) + gamma · mean(1 - r of columns)).

    r is the Pearson correlation between the student's and the teacher's softened probabilities. Row correlations
    compare one sample over the classes. Column correlations compare one class over the batch. Every p_t = a · p_s + b
    with a > 0 has loss 0.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C), adapted or not. Gradients flow into them too.
        temperature: divides both logits.
        beta: weight of the rows.
        gamma: weight of the columns.

    Returns:
        Scalar in [0, 2 T² (beta + gamma)]. A constant row or column counts as uncorrelated.

    Source:
        Huang et al., "Knowledge Distillation from A Stronger Teacher" (2022). T² is taken from the paper's code.
    """
    student = torch.softmax(student_logits / temperature, dim=1)
    teacher = torch.softmax(teacher_logits / temperature, dim=1)
    rows = 1 - _correlation(student, teacher).mean()
    columns = 1 - _correlation(student.t(), teacher.t()).mean()
    return (beta * rows + gamma * columns) * temperature**2


def standardised_kd_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Compute `kd_loss` of logits standardised per row: mean subtracted, divided by the standard deviation.

    The loss matches only the shape of each sample's logits. Shifting or scaling either side changes nothing.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C), adapted or not. Gradients flow into them too, also through their deviation.
        temperature: divides the standardised logits of both.

    Returns:
        Scalar, averaged over the batch, T² applied. 0 if the standardised logits are equal.

    Source:
        Sun et al., "Logit Standardization in Knowledge Distillation" (2024), algorithm 1. The deviation divides by C as
        in the paper. The paper's code divides by C - 1, which lowers the temperature by a factor √((C - 1) / C).
    """
    return kd_loss(_standardised(student_logits), _standardised(teacher_logits), temperature=temperature)


def atkd_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Compute a KL divergence with one temperature per row, chosen to equalise the sharpness of student and teacher.

    For logits z with mean 0 over C classes and deviation σ, the sharpness log Σ exp(z / τ) is about log C + σ² / 2τ².
    Setting τ = temperature · σ, with a separate σ for student and teacher, makes both sharpnesses equal to second
    order. The student's temperature is a constant: no gradient flows through it. The divergence is scaled by the
    student's τ², just as T² scales the loss for equal temperatures.

    The gradient of adapted teacher logits flows through their temperature. The loss does not depend on the scale of
    these logits, and with a constant temperature an adapter would change the scale in every step for nothing.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C), adapted or not. Gradients flow into them too, also through their deviation.
        temperature: in units of a row's standard deviation.

    Returns:
        Scalar, averaged over the batch. 0 if the standardised logits are equal.

    Source:
        Guo, "Reducing the Teacher-Student Gap via Adaptive Temperatures" (2022). The abstract leaves two choices open,
        which are ours: the deviation is taken per sample, and the scale is the student's τ², not the teacher's.
        Gradients of adapted logits are ours too.
    """
    scale = temperature * _deviation(student_logits.detach())
    student = student_logits / scale
    teacher = teacher_logits / (temperature * _deviation(teacher_logits))
    rows = divergence(torch.log_softmax(student, dim=1), torch.log_softmax(teacher, dim=1))
    return (rows * scale.squeeze(1) ** 2).mean()


def dtkd_loss(student_logits: Tensor, teacher_logits: Tensor, *, temperature: float) -> Tensor:
    """Compute a KL divergence with two temperatures per row, in the ratio of the models' sharpness.

    With the largest logits m_s and m_t of student and teacher, the temperatures are τ_s = 2 T m_s / (m_s + m_t) and
    τ_t = 2 T m_t / (m_s + m_t). Their mean is T, and the sharper model is softened more. The divergence of a row is
    scaled by τ_s τ_t. Gradients also flow through the temperatures.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C), adapted or not. Gradients flow into them too, also through the temperatures.
        temperature: T, mean of the two temperatures of a row.

    Returns:
        Scalar, averaged over the batch. 0 if student and teacher logits are equal up to a positive factor.

    Source:
        Wei and Bai, "Dynamic Temperature Knowledge Distillation" (2024), as in mdistiller/distillers/DTKD.py of
        github.com/JinYu1998/DTKD at commit 9ebaa97. The paper derives the temperatures from the sharpness
        log Σ exp(z), and its authors have withdrawn the derivation (equations 4 and 5). The code takes the largest
        logit instead, which is lower by at most log C. Ours: a largest logit below 0.1 counts as 0.1, because the
        temperatures would not be positive.
    """
    student, teacher = (
        each.max(dim=1, keepdim=True).values.clamp_min(_LEAST_TOP) for each in (student_logits, teacher_logits)
    )
    scale = 2 * temperature / (student + teacher)
    of_student, of_teacher = student * scale, teacher * scale
    rows = divergence(
        torch.log_softmax(student_logits / of_student, dim=1), torch.log_softmax(teacher_logits / of_teacher, dim=1)
    )
    return (rows * (of_student * of_teacher).squeeze(1)).mean()


def ttm_loss(student_logits: Tensor, teacher_logits: Tensor, *, gamma: float, weighted: bool = False) -> Tensor:
    """Compute the KL divergence of the student at temperature 1 from the power-transformed teacher, p^γ / Σ p^γ.

    Args:
        student_logits: (B, C).
        teacher_logits: (B, C), adapted or not. Gradients flow into them too, also through the weight.
        gamma: the exponent γ, equivalent to a temperature of 1 / γ for the teacher alone.
        weighted: weight each sample by Σ p^γ, which is 1 for a certain teacher and C^(1 - γ) for a uniform one.

    Returns:
        Scalar, averaged over the batch, without T². 0 if the student predicts the transformed distribution.

    Source:
        Zheng and Yang, "Knowledge Distillation Based on Transformed Teacher Matching" (2024), appendix A.3.
    """
    powers = gamma * torch.log_softmax(teacher_logits, dim=1)
    log_sum = torch.logsumexp(powers, dim=1)
    rows = divergence(torch.log_softmax(student_logits, dim=1), powers - log_sum[:, None])
    return (log_sum.exp() * rows if weighted else rows).mean()


def divergence(log_student: Tensor, log_teacher: Tensor) -> Tensor:
    """Compute KL(teacher || student) per row, (B,)."""
    return (log_teacher.exp() * (log_teacher - log_student)).sum(dim=1)


def without_label(values: Tensor, labels: Tensor) -> Tensor:
    """Drop the label's column from each row, (B, C - 1). Indexing avoids a mask, which would synchronise the GPU."""
    columns = torch.arange(values.shape[1] - 1, device=values.device)
    return values.gather(1, columns + (columns >= labels[:, None]))


def _correlation(first: Tensor, second: Tensor) -> Tensor:
    """Compute the Pearson correlation of each pair of rows. A constant row gives 0."""
    first, second = (each - each.mean(dim=1, keepdim=True) for each in (first, second))
    return (first * second).sum(dim=1) / (first.norm(dim=1) * second.norm(dim=1) + _SMALL)


def _deviation(logits: Tensor) -> Tensor:
    """Compute row deviations (B, 1), dividing by C. The small constant keeps gradients of constant rows finite."""
    return (logits.var(dim=1, correction=0, keepdim=True) + _SMALL**2).sqrt()


def _standardised(logits: Tensor) -> Tensor:
    return (logits - logits.mean(dim=1, keepdim=True)) / _deviation(logits)
