"""Deep mutual learning: two networks learn from scratch, each from the labels and from what the other says."""

from torch import Tensor

from trainables.losses.logits import kd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum_of_both
from trainables.spec.methods import METHOD_SPECS


def dml_losses(
    outputs: StepOutputs, labels: Tensor, *, temperature: float, ce_weight: float, kd_weight: float
) -> LossParts:
    """For each of both networks, ce_weight · CE(z, y) + kd_weight · T² KL(softmax(z' / T) || softmax(z / T)).

    z are its own logits and z' the other's, as constants. Both take their step at once, on logits from before it.

    Args:
        outputs: needs `student_logits` and `peer_logits`, (B, C).
        labels: (B,) int64.
        temperature: softens both sides of the divergence.
        ce_weight: weight of each network's cross-entropy.
        kd_weight: weight of each network's divergence from the other.

    Returns:
        The parts `total`, of both networks; `ce` and `kd`, of the student; and `peer`.

    Source:
        Zhang et al., "Deep Mutual Learning" (2018), for two networks. There they take turns, the second learning from
        what the first says after its step; here, as in most code since, both learn from before it, which spares a
        forward pass. The temperature is ours: the paper has none, which is 1.
    """
    assert outputs.peer_logits is not None
    student, peer = outputs.student_logits, outputs.peer_logits
    kd = kd_loss(student, peer.detach(), temperature=temperature)
    back = kd_loss(peer, student.detach(), temperature=temperature)
    return weighted_sum_of_both(outputs, labels, kd, back, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["dml"], dml_losses)
