"""Similarity preserving: samples of a batch that look alike to the teacher's last stage do so to the student's."""

from torch import Tensor
from torch.nn.functional import normalize

from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.maps import last_pair
from trainables.methods.method import Method, weighted_sum
from trainables.spec.methods import METHOD_SPECS


def similarities(maps: Tensor) -> Tensor:
    """Products of each sample's activations with every sample's, each row scaled to length 1.

    Args:
        maps: (B, ...), of each sample whatever shape.

    Returns:
        (B, B); a row of 0 for a sample whose map is 0.
    """
    flat = maps.flatten(1)
    return normalize(flat @ flat.t(), dim=1)


def sp_loss(student_map: Tensor, teacher_map: Tensor) -> Tensor:
    """Squared difference of the two tables of similarities, mean over the B² pairs.

    Args:
        student_map: (B, ...).
        teacher_map: (B, ...), of another shape if it likes: neither channels nor positions have to agree.

    Returns:
        Scalar; 0 for maps that differ by an orthogonal transformation and in scale, and for B = 1.

    Source:
        Tung and Mori, "Similarity-Preserving Knowledge Distillation" (2019), equations 1 to 4.
    """
    return (similarities(student_map) - similarities(teacher_map)).square().mean()


def sp_losses(outputs: StepOutputs, labels: Tensor, *, ce_weight: float, kd_weight: float) -> LossParts:
    """ce_weight · CE(z_s, y) + kd_weight · `sp_loss` of the last stages.

    Args:
        outputs: needs `student_logits` (B, C), `student_maps` and `teacher_maps`.
        labels: (B,) int64.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the similarities; the published weight is 3,000.

    Returns:
        The parts `total`, `ce` and `kd`.

    Source:
        Tung and Mori, "Similarity-Preserving Knowledge Distillation" (2019). Which stages are matched the paper leaves
        open; the last alone, before the global average, is the choice of CRD's comparison (Tian et al., 2020).
    """
    kd = sp_loss(*last_pair(outputs))
    return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["sp"], sp_losses)
