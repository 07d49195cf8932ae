"""Sharpness of predictions, sharpness gap between two models, and calibration.

Shapes: B samples, C classes. Logarithms are natural, so entropies are in nats.
"""

import torch
from torch import Tensor


def sharpness(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Compute the sharpness of each prediction, log Σ_c exp(z_c / T).

    Adding a constant k to all logits of a row adds k / T to the sharpness, although the softmax does not change.
    `centred_sharpness` is free of this effect.

    Args:
        logits: (B, C).
        temperature: divides the logits.

    Returns:
        (B,).

    Source:
        Rao et al., "Parameter-Efficient and Student-Friendly Knowledge Distillation" (2022), definition of sharpness,
        where the temperature is 1.
    """
    return torch.logsumexp(logits / temperature, dim=1)


def centred_sharpness(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Compute the sharpness of each prediction after subtracting the mean logit of the row.

    Args:
        logits: (B, C).
        temperature: divides the logits.

    Returns:
        (B,), a function of the softmax alone. At least log C, reached by a uniform prediction.

    Source:
        Ours.
    """
    return sharpness(logits - logits.mean(dim=1, keepdim=True), temperature=temperature)


def sharpness_gap(
    teacher_logits: Tensor, student_logits: Tensor, *, temperature: float = 1.0, centred: bool = False
) -> Tensor:
    """Compute how much sharper the teacher is than the student, mean(sharpness of teacher - sharpness of student).

    Args:
        teacher_logits: (B, C), adapted or not.
        student_logits: (B, C).
        temperature: divides the logits of both.
        centred: measure by `centred_sharpness` instead of `sharpness`.

    Returns:
        Scalar, averaged over the batch. Negative if the student is sharper.

    Source:
        Rao et al. (2022), the sharpness gap. `centred` is ours.
    """
    measure = centred_sharpness if centred else sharpness
    return (measure(teacher_logits, temperature=temperature) - measure(student_logits, temperature=temperature)).mean()


def entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Compute the entropy of each softened prediction.

    Args:
        logits: (B, C).
        temperature: divides the logits.

    Returns:
        (B,) in nats, from 0 (certain) to log C (uniform).
    """
    log_probabilities = torch.log_softmax(logits / temperature, dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1)


def expected_calibration_error(logits: Tensor, labels: Tensor, *, bins: int = 15) -> Tensor:
    """Compute the expected calibration error with bins of equal width over the confidence.

    Args:
        logits: (B, C).
        labels: (B,) int64.
        bins: number of bins. Bin b holds confidences in (b / bins, (b + 1) / bins].

    Returns:
        Scalar in [0, 1]: Σ_bins (share of samples) · `|accuracy - mean confidence|`.

    Source:
        Guo et al., "On Calibration of Modern Neural Networks" (2017), equation 3.
    """
    confidence, correct, members = _binned(logits, labels, bins)
    return ((correct - confidence) @ members).abs().sum() / len(labels)


def reliability(logits: Tensor, labels: Tensor, *, bins: int = 15) -> Tensor:
    """Compute the data of a reliability diagram: count, confidence and correct predictions per bin.

    Results of several seeds can be added. Σ_bins |correct - confidence| / B is the expected calibration error.

    Args:
        logits: (B, C).
        labels: (B,) int64.
        bins: as in `expected_calibration_error`.

    Returns:
        (3, bins) in the dtype of the logits: prediction count, summed confidences, and number of correct predictions.

    Source:
        Guo et al. (2017), section 2.
    """
    confidence, correct, members = _binned(logits, labels, bins)
    return torch.stack([torch.ones_like(confidence), confidence, correct]) @ members


def _binned(logits: Tensor, labels: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return confidence (B,), correctness (B,) and one-hot bin (B, bins) of each prediction."""
    confidence, prediction = torch.softmax(logits, dim=1).max(dim=1)
    inner_edges = torch.arange(1, bins, device=logits.device, dtype=confidence.dtype) / bins
    bin_of_sample = torch.bucketize(confidence, inner_edges)
    # Multiply by one-hot bins instead of scatter-adding: scatter-add has no fixed order of summation on a GPU.
    members = torch.nn.functional.one_hot(bin_of_sample, bins).to(confidence.dtype)
    return confidence, (prediction == labels).to(confidence.dtype), members
