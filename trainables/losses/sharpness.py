"""How sharp predictions are, how far apart two models' sharpness is, and how calibrated they are.

B samples, C classes. Logs are natural, so entropies are in nats.
"""

import torch
from torch import Tensor


def sharpness(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Sharpness of each prediction, log Σ_c exp(z_c / T).

    Adding a constant to a row's logits moves it by that constant over T although the softmax stays as it was;
    `centred_sharpness` does not have this.

    Args:
        logits: (B, C).
        temperature: divides the logits.

    Returns:
        (B,).

    Source:
        Rao et al., "Parameter-Efficient and Student-Friendly Knowledge Distillation" (2022), its definition
        of sharpness; the temperature is 1 there.
    """
    return torch.logsumexp(logits / temperature, dim=1)


def centred_sharpness(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Sharpness of each prediction after subtracting the row's mean logit.

    Args:
        logits: (B, C).
        temperature: divides the logits.

    Returns:
        (B,), at least log C, which a uniform prediction has; a function of the softmax alone.

    Source:
        Ours.
    """
    return sharpness(logits - logits.mean(dim=1, keepdim=True), temperature=temperature)


def sharpness_gap(
    teacher_logits: Tensor, student_logits: Tensor, *, temperature: float = 1.0, centred: bool = False
) -> Tensor:
    """How much sharper the teacher is than the student, mean(teacher - student) of their sharpness.

    Args:
        teacher_logits: (B, C), adapted or not.
        student_logits: (B, C).
        temperature: divides the logits of both.
        centred: measure by `centred_sharpness` instead of `sharpness`.

    Returns:
        Scalar, mean over the batch; negative where the student is the sharper.

    Source:
        Rao et al. (2022), the sharpness gap; `centred` is ours.
    """
    measure = centred_sharpness if centred else sharpness
    return (measure(teacher_logits, temperature=temperature) - measure(student_logits, temperature=temperature)).mean()


def entropy(logits: Tensor, *, temperature: float = 1.0) -> Tensor:
    """Entropy of each softened prediction.

    Args:
        logits: (B, C).
        temperature: divides the logits.

    Returns:
        (B,), nats, from 0 (certain) to log C (uniform).
    """
    log_probabilities = torch.log_softmax(logits / temperature, dim=1)
    return -(log_probabilities.exp() * log_probabilities).sum(dim=1)


def expected_calibration_error(logits: Tensor, labels: Tensor, *, bins: int = 15) -> Tensor:
    """How far confidence is from accuracy, in bins of equal width over the confidence.

    Args:
        logits: (B, C).
        labels: (B,) int64.
        bins: number of bins; bin b holds confidences in (b / bins, (b + 1) / bins].

    Returns:
        Scalar in [0, 1]: Σ_bins (share of samples) · |accuracy - mean confidence|.

    Source:
        Guo et al., "On Calibration of Modern Neural Networks" (2017), equation 3.
    """
    confidence, correct, members = _binned(logits, labels, bins)
    return ((correct - confidence) @ members).abs().sum() / len(labels)


def reliability(logits: Tensor, labels: Tensor, *, bins: int = 15) -> Tensor:
    """What a reliability diagram is drawn of: how many predictions each bin holds, how confident and how often right.

    Args:
        logits: (B, C).
        labels: (B,) int64.
        bins: as in `expected_calibration_error`.

    Returns:
        (3, bins) in the dtype of the logits: the number of predictions, the sum of their confidences, and how many of
        them are right. Those of several seeds may be added; Σ_bins |right - confidence| / B is the calibration error.

    Source:
        Guo et al. (2017), section 2.
    """
    confidence, correct, members = _binned(logits, labels, bins)
    return torch.stack([torch.ones_like(confidence), confidence, correct]) @ members


def _binned(logits: Tensor, labels: Tensor, bins: int) -> tuple[Tensor, Tensor, Tensor]:
    """Confidence (B,) of each prediction, whether it is right (B,), and its bin as one-hot (B, bins)."""
    confidence, prediction = torch.softmax(logits, dim=1).max(dim=1)
    inner_edges = torch.arange(1, bins, device=logits.device, dtype=confidence.dtype) / bins
    bin_of_sample = torch.bucketize(confidence, inner_edges)
    # A product with the one-hot bins: scatter-adds have no fixed order of summation on a GPU.
    members = torch.nn.functional.one_hot(bin_of_sample, bins).to(confidence.dtype)
    return confidence, (prediction == labels).to(confidence.dtype), members
