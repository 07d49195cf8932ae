"""Distillation losses as pure functions of logits.

B samples in the batch, C classes. Logs are natural; a loss is the mean over the batch, a scalar tensor.
"""

import torch
from torch import Tensor


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
