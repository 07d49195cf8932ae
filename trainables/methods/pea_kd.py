"""Pea-KD: a student whose layers run twice, and that first learns how its teacher answers."""

from torch import Tensor, nn
from torch.nn.functional import cross_entropy

from trainables.losses.logits import kd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, PartsSetting, weighted_sum
from trainables.spec.methods import METHOD_SPECS

_ANSWERS = 4  # right or wrong, confident or not


def answers_of(teacher_logits: Tensor, labels: Tensor, *, threshold: float) -> Tensor:
    """How the teacher answers: 0 right and confident, 1 right and not, 2 wrong and confident, 3 wrong and not.

    Args:
        teacher_logits: (B, C).
        labels: (B,) int64.
        threshold: from which probability of its answer on it counts as confident.

    Returns:
        (B,) int64.
    """
    confidence, answer = teacher_logits.softmax(dim=1).max(dim=1)
    return 2 * (answer != labels).long() + (confidence < threshold).long()


def answer_head(setting: PartsSetting) -> nn.Linear:
    """The layer that tells the teacher's answers from the student's feature."""
    return nn.Linear(setting.student_dim, _ANSWERS)


def pea_kd_losses(
    outputs: StepOutputs,
    labels: Tensor,
    *,
    temperature: float,
    ce_weight: float,
    kd_weight: float,
    pea_threshold: float,
    pea_epochs: int,
) -> LossParts:
    """In the first epochs kd_weight · CE(how the teacher answers), then ce_weight · CE(z_s, y) + kd_weight · T² KL.

    Args:
        outputs: needs `student_feature` (B, D), `student_logits` and `teacher_logits` (B, C), the epoch, and the layer
            for the teacher's answers in `parts`.
        labels: (B,) int64.
        temperature: softens both sides of the divergence.
        ce_weight: weight of the student's cross-entropy.
        kd_weight: weight of the divergence, and of the cross-entropy in the first epochs.
        pea_threshold: see `answers_of`.
        pea_epochs: how many first epochs.

    Returns:
        The parts `total`, `ce` and `kd`.

    Source:
        Cho and Kang, "Pea-KD: Parameter-efficient and Accurate Knowledge Distillation on BERT" (2020): pretraining with
        the teacher's predictions, whose four classes these are. That the student's layers are shared and shuffled,
        `trainables.models.text.share_layers` sees to. Both from memory of the paper, not checked against its code; one
        learning-rate schedule over both phases is ours.
    """
    assert isinstance(outputs.parts, nn.Linear)
    if outputs.epoch >= pea_epochs:
        kd = kd_loss(outputs.student_logits, outputs.taught_by(), temperature=temperature)
        return weighted_sum(outputs, labels, kd, ce_weight=ce_weight, kd_weight=kd_weight)
    teacher = outputs.taught_by()
    told = cross_entropy(outputs.parts(outputs.student_feature), answers_of(teacher, labels, threshold=pea_threshold))
    # A teacher that is not finite would otherwise show as answers like any other.
    told = told + 0.0 * teacher.sum()
    ce = cross_entropy(outputs.student_logits.detach(), labels)
    return LossParts(kd_weight * told, ce=ce, kd=told)


METHOD = Method(METHOD_SPECS["pea_kd"], pea_kd_losses, parts=answer_head)
