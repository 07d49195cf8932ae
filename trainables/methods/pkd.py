"""Patient knowledge distillation: student layers also match teacher layers, by the hidden state of the [CLS] token."""

from typing import Literal

import torch
from torch import Tensor
from torch.nn.functional import mse_loss, normalize

from trainables.losses.logits import kd_loss, probability_mse_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum
from trainables.spec.layer_matching import matched_layers
from trainables.spec.methods import METHOD_SPECS
from trainables.spec.methods.settings import Distance


def patience_loss(
    student: tuple[Tensor, ...], teacher: tuple[Tensor, ...], *, student_layers: Literal["skip", "first", "last"]
) -> Tensor:
    """Compute the mean squared difference of the [CLS] states of matched layers, each state scaled to length 1.

    The student's last layer is left out, because the logits already distil that layer.

    Args:
        student: hidden states (B, H) after the embeddings and after each layer.
        teacher: the same for the teacher, with equal H.
        student_layers: which teacher layers are matched.

    Returns:
        Scalar, the mean over samples, layers and units; 0 for a student with one layer.

    Raises:
        ValueError: the widths H differ, or the teacher's layers cannot be matched this way.

    Source:
        Sun et al., "Patient Knowledge Distillation for BERT Model Compression" (2019), equation 7, with a mean instead
        of a sum.
    """
    if student[0].shape[1] != teacher[0].shape[1]:
        raise ValueError(
            f"method 'pkd' compares states of equal width: the student's have {student[0].shape[1]} units, the "
            f"teacher's {teacher[0].shape[1]}. Choose a student as wide as its teacher"
        )
    matched = matched_layers(len(teacher) - 1, len(student) - 1, which=student_layers)[:-1]
    if not matched:
        return student[0].new_zeros(())
    # Index 0 is the output of the embeddings.
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
    distance: Distance,
    adapter_ce_weight: float,
    detach_adapter_target: bool,
) -> LossParts:
    """Compute ce_weight · CE(z_s, y) + kd_weight · T² KL(softmax(z / T) || softmax(z_s / T)) + pkd_weight · patience.

    The patience term is `patience_loss`. With an adapter, z are the adapted logits, and adapter_ce_weight · CE(z_a, y)
    is added. With distance `mse`, this is the released objective of PESF-KD for text, see
    `trainables.spec.methods.pesf_variants`.

    Args:
        outputs: step outputs with `student_logits` and `teacher_logits`, both (B, C), and with the hidden states of
            both networks in `student_maps` and `teacher_maps`.
        labels: (B,) int64.
        temperature: T, softens both sides of the divergence.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence.
        pkd_weight: weight of the patience loss, the paper's β.
        student_layers: which teacher layers are matched: `skip` is PKD-Skip, `last` is PKD-Last.
        distance: `kl`, or `mse` for T² times the mean squared difference of both softmaxes, as in PESF-KD's code.
        adapter_ce_weight: weight of the adapted teacher's cross-entropy.
        detach_adapter_target: stop the gradient of the divergence before the adapter.

    Returns:
        Loss parts `total`, `ce`, `kd` and, with an adapter, `adapter`; only `total` includes the patience loss.

    Source:
        Sun et al. (2019), equation 8. Adapter and `mse` are from nlp/distillation_meta.py of
        github.com/1170300319/PESF-KD.
    """
    assert outputs.student_maps is not None
    assert outputs.teacher_maps is not None
    distance_of = kd_loss if distance == "kl" else probability_mse_loss
    target = outputs.target_logits(detached=detach_adapter_target)
    kd = distance_of(outputs.student_logits, target, temperature=temperature)
    parts = weighted_sum(
        outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight, adapter_ce_weight=adapter_ce_weight
    )
    patience = patience_loss(outputs.student_maps, outputs.teacher_maps, student_layers=student_layers)
    return parts._replace(total=parts.total + pkd_weight * patience)


METHOD = Method(METHOD_SPECS["pkd"], pkd_losses)
