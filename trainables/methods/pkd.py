"""Patient knowledge distillation: the student's layers also follow layers of its teacher, by their [CLS] states."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, normalize

from trainables.losses.logits import kd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.layer_matching import matched_layers
from trainables.spec.methods import METHOD_SPECS


def patience_loss(
    student: tuple[Tensor, ...], teacher: tuple[Tensor, ...], *, student_layers: Literal["skip", "first", "last"]
) -> Tensor:
    """The mean squared difference of matched layers' [CLS] states, each divided by its length.

    The student's last layer is left out: its logits are taught by the teacher's.

    Args:
        student: states (B, H) after the embeddings and after each layer.
        teacher: the same of the teacher, H alike.
        student_layers: which layers of the teacher are matched.

    Returns:
        Scalar, a mean over samples, layers and units; 0 for a student of one layer.

    Raises:
        ValueError: the two are not equally wide, or layers cannot be matched so.

    Source:
        Sun et al., "Patient Knowledge Distillation for BERT Model Compression" (2019), equation 7, as a mean and not a
        sum.
    """
    if student[0].shape[1] != teacher[0].shape[1]:
        raise ValueError(
            f"method 'pkd' compares states of equal width: the student's have {student[0].shape[1]} units, the "
            f"teacher's {teacher[0].shape[1]}. Choose a student as wide as its teacher"
        )
    matched = matched_layers(len(teacher) - 1, len(student) - 1, which=student_layers)[:-1]
    if not matched:
        return student[0].new_zeros(())
    # [0] is what the embeddings give.
    theirs = torch.stack([normalize(teacher[layer + 1], dim=1) for layer in matched])
    own = torch.stack([normalize(each, dim=1) for each in student[1:-1]])
    return mse_loss(own, theirs)


def pkd_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    pkd_weight: float,
    student_layers: Literal["skip", "first", "last"],
) -> LossParts:
    """ce_weight · CE(z_s, y) + kd_weight · T² KL(softmax(z / T) || softmax(z_s / T)) + pkd_weight · the patience loss.

    Args:
        outputs: needs `student_logits` (B, C), `teacher_logits` (B, C), and both nets' states in their maps.
        labels: (B,) int64.
        temperature: softens both sides of the divergence.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence.
        pkd_weight: weight of the patience loss, the paper's β.
        student_layers: which layers of the teacher are matched: `skip` is PKD-Skip, `last` PKD-Last.

    Returns:
        The parts `total`, `ce` and `kd`; the patience loss is in the total alone.

    Source:
        Sun et al. (2019), equation 8.
    """
    assert outputs.student_maps is not None
    assert outputs.teacher_maps is not None
    kd = kd_loss(outputs.student_logits, outputs.taught_by(), temperature=temperature)
    parts = weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)
    patience = patience_loss(outputs.student_maps, outputs.teacher_maps, student_layers=student_layers)
    return parts._replace(total=parts.total + pkd_weight * patience)


METHOD = Method(METHOD_SPECS["pkd"], pkd_losses)
