"""Pea-KD: the student's layers run twice, and the student first learns to predict how the teacher answers."""

import torch
from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainables.losses.logits import kd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, PartsSetting, weighted_sum
from trainables.spec.methods import METHOD_SPECS

_ANSWERS = 4  # right or wrong, confident or not


def answers_of(
    teacher_logits: Tensor, labels: Tensor, *, threshold: float, wrong_threshold: float | None = None
) -> Tensor:
    """Classify the teacher's answers into four classes by correctness and confidence.

    The classes are 0 right and confident, 1 right and unsure, 2 wrong and confident, 3 wrong and unsure.

    Args:
        teacher_logits: (B, C).
        labels: (B,) int64.
        threshold: smallest probability of the predicted class to count as confident.
        wrong_threshold: the same for wrong answers; None for the same threshold.

    Returns:
        (B,) int64.
    """
    confidence, answer = teacher_logits.softmax(dim=1).max(dim=1)
    wrong = answer != labels
    least = confidence.new_tensor(threshold)
    if wrong_threshold is not None:
        least = torch.where(wrong, confidence.new_tensor(wrong_threshold), least)
    return 2 * wrong.long() + (confidence < least).long()


def answer_head(setting: PartsSetting) -> nn.Linear:
    """Build the layer that predicts the teacher's answer class from the student's feature."""
    return nn.Linear(setting.student_dim, _ANSWERS)


def pea_kd_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    pea_threshold: float,
    pea_wrong_threshold: float,
    pea_epochs: int,
) -> LossParts:
    """Compute kd_weight · CE(answer class) in the first epochs, then ce_weight · CE(z_s, y) + kd_weight · T² KL.

    The answer class comes from `answers_of`, the KL divergence from `kd_loss`.

    Args:
        outputs: step outputs with `student_feature` (B, D), `student_logits` and `teacher_logits`, both (B, C),
            `epoch`, and the answer head in `parts`.
        labels: (B,) int64.
        temperature: T, softens both sides of the divergence.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence, and of the cross-entropy in the first epochs.
        pea_threshold: see `answers_of`.
        pea_wrong_threshold: threshold of wrong answers; 0 for `pea_threshold`.
        pea_epochs: number of first epochs.

    Returns:
        Loss parts `total`, `ce` and `kd`.

    Source:
        Cho and Kang, "Pea-KD: Parameter-efficient and Accurate Knowledge Distillation on BERT" (2020), pretraining with
        the teacher's predictions (PTP) in four classes, and the authors' code, github.com/snudm-starlab/Pea-KD at
        commit 0375288 (src/PTP.py, src/utils/nli_data_processing.py, src/utils/KD_loss.py): T = 10, α = 0.7 and two
        thresholds per task. `trainables.models.text.share_layers` implements the shared and shuffled layers from memory
        of the paper. Differences from the code: PTP is a separate stage of several epochs there, with a separate
        optimiser and schedule. The stage's checkpoint starts the distillation with a new classification layer. Here PTP
        takes the first `pea_epochs` epochs of the trial, under the same schedule, and leaves the classification layer
        untrained. The PTP loss has weight 1 there and kd_weight here. The released distillation adds β · PKD with β =
        100, which is left out here, because stored outputs have no hidden states. A confidence equal to the threshold
        counts as unsure there.
    """
    assert isinstance(outputs.parts, nn.Linear)
    if outputs.epoch >= pea_epochs:
        kd = kd_loss(outputs.student_logits, outputs.target_logits(), temperature=temperature)
        return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)
    teacher = outputs.target_logits()
    answers = answers_of(teacher, labels, threshold=pea_threshold, wrong_threshold=pea_wrong_threshold or None)
    told = cross_entropy(outputs.parts(outputs.student_feature), answers)
    # Propagate NaN and infinity from the teacher; `answers_of` would otherwise hide them as ordinary classes.
    told = told + 0.0 * teacher.sum()
    ce = cross_entropy(outputs.student_logits.detach(), labels)
    return LossParts(kd_weight * told, ce=ce, kd=told)


METHOD = Method(METHOD_SPECS["pea_kd"], pea_kd_losses, parts=answer_head)
