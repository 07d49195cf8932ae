"""Deep mutual learning: two networks learn from scratch, from the labels and from each other's logits."""

from torch import Tensor

from trainables.losses.logits import kd_loss
from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.method import Method, weighted_sum_of_both
from trainables.spec.methods import METHOD_SPECS


def dml_losses(
    outputs: StepOutputs, labels: Tensor, *, temperature: float, ce_weight: float, kd_weight: float
) -> LossParts:
    """Compute ce_weight · CE(z, y) + kd_weight · T² KL(softmax(z' / T) || softmax(z / T)) for each of the two networks.

    z are the network's own logits. z' are the other network's logits, treated as constants. One step updates both
    networks, using logits computed before the update.

    Args:
        outputs: step outputs with `student_logits` and `peer_logits`, both (B, C).
        labels: (B,) int64.
        temperature: T, softens both sides of the divergence.
        ce_weight: weight of each network's cross-entropy.
        kd_weight: weight of each network's divergence from the other network.

    Returns:
        Loss parts `total`, for both networks; `ce` and `kd`, for the student; and `peer`.

    Source:
        Zhang et al., "Deep Mutual Learning" (2018), for two networks. In the paper the networks take turns, and the
        second network uses the logits of the already updated first network. Here, as in most later code, both use
        logits from before the update, which saves a forward pass. The temperature is ours; the paper's temperature is
        1.
    """
    assert outputs.peer_logits is not None
    student, peer = outputs.student_logits, outputs.peer_logits
    kd = kd_loss(student, peer.detach(), temperature=temperature)
    back = kd_loss(peer, student.detach(), temperature=temperature)
    return weighted_sum_of_both(outputs, labels, kd, back, ce_weight=ce_weight, kd_weight=kd_weight)


METHOD = Method(METHOD_SPECS["dml"], dml_losses)
