"""Float64 references of distillation losses, written from their authors' papers and code, sample by sample."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def probabilities(logits: Floats) -> Floats:
    powers = np.exp(logits - logits.max())
    return powers / powers.sum()


def kl(target: Floats, prediction: Floats) -> float:
    """Σ target · log(target / prediction), where 0 · log 0 is 0."""
    kept = target > 0
    return float((target[kept] * np.log(target[kept] / prediction[kept])).sum())


def released_nkd(student: Floats, teacher: Floats, labels: Floats, *, temperature: float, gamma: float) -> float:
    """`NKDLoss.forward` of mmcls/models/dis_losses/nkd.py, github.com/yzd-v/cls_KD at commit 1e5d48f."""
    of_label, of_others = [], []
    for s, t, label in zip(student, teacher, labels, strict=True):
        of_label.append(-probabilities(t)[label] * np.log(probabilities(s)[label]))
        s_rest, t_rest = (probabilities(np.delete(each, label) / temperature) for each in (s, t))
        of_others.append((t_rest * np.log(s_rest)).sum())
    return float(np.mean(of_label) - gamma * temperature**2 * np.mean(of_others))


def entropy_of_others(teacher: Floats, labels: Floats, *, temperature: float) -> float:
    """Mean entropy of the teacher's distributions without the label: cross-entropy less divergence."""
    rests = [probabilities(np.delete(t, label) / temperature) for t, label in zip(teacher, labels, strict=True)]
    return float(np.mean([-(rest * np.log(rest)).sum() for rest in rests]))


def released_rld(
    student: Floats, teacher: Floats, labels: Floats, *, temperature: float, alpha: float, beta: float
) -> float:
    """`rld_loss` of mdistiller/distillers/RLD.py, github.com/zju-SWJ/RLD at commit d54578f, as with `--same-t`."""
    total = 0.0
    for s, t, label in zip(student, teacher, labels, strict=True):
        p_s, p_t = (probabilities(each / temperature) for each in (s, t))
        own, top = p_s[label], p_t[int(np.argmax(t))]
        confidence = kl(np.array([top, 1 - top]), np.array([own, 1 - own]))
        lower = [c for c in range(len(t)) if not t[c] >= t[label]]
        correlation = 0.0
        if lower:
            correlation = kl(probabilities(t[lower] / temperature), probabilities(s[lower] / temperature))
        total += alpha * confidence * temperature**2 + beta * correlation * temperature**2
    return total / len(labels)


def published_pld(student: Floats, teacher: Floats, labels: Floats, *, temperature: float) -> float:
    """The loss of section 4.2 of the paper: the label first, then descending teacher logits, weighted by rank."""
    total = 0.0
    for s, t, label in zip(student, teacher, labels, strict=True):
        others = sorted((c for c in range(len(t)) if c != label), key=lambda c: -t[c])
        ranking = [int(label), *others]
        weights = probabilities(t / temperature)
        for k, chosen in enumerate(ranking):
            left = s[ranking[k:]]
            total += weights[chosen] * (np.log(np.exp(left - left.max()).sum()) + left.max() - s[chosen])
    return total / len(labels)


def mlkd_levels(student: Floats, teacher: Floats, *, temperatures: tuple[float, ...]) -> tuple[float, float, float]:
    """The instance, batch and class level of equations in section 3 of the paper, averaged over the batch."""
    instance = batch = of_class = 0.0
    for temperature in temperatures:
        p, q = (np.array([probabilities(row / temperature) for row in each]) for each in (teacher, student))
        instance += temperature**2 * np.mean([kl(a, b) for a, b in zip(p, q, strict=True)])
        batch += ((p @ p.T - q @ q.T) ** 2).sum() / len(p)
        of_class += ((p.T @ p - q.T @ q) ** 2).sum() / p.shape[1]
    return float(instance), float(batch), float(of_class)


def released_mlkd(student: Floats, teacher: Floats) -> float:
    """The weak view's `loss_kd + loss_cc + loss_bc` without weights, of `KD_ours.forward_train`.

    That is mdistiller/distillers/KD_ours.py of github.com/Jin-Ying/Multi-Level-Logit-Distillation at commit 5ee473f.
    The masks multiply scalars there, and their mean is taken.
    """
    plain = np.array([probabilities(row) for row in teacher])
    confidence, of_classes = plain.max(axis=1), plain.sum(axis=0)
    mask, class_mask = (each <= np.percentile(each, 50) for each in (confidence, of_classes))
    instance, batch, of_class = mlkd_levels(student, teacher, temperatures=(4.0, 3.0, 5.0, 2.0, 6.0))
    return float((instance * mask).mean() + (batch * mask).mean() + (of_class * class_mask).mean())


def released_wkd(
    student: Floats,
    teacher: Floats,
    labels: Floats,
    distances: Floats,
    *,
    temperature: float,
    weight: float,
    sharpening: float,
    regularisation: float = 0.05,
    iterations: int = 10,
) -> float:
    """`wkd_logit_loss_with_speration` of mdistiller/distillers/WKD.py, github.com/JiamingLv/WKD at commit 214cf88."""
    sharpened = 1 - np.exp(-sharpening * distances)
    of_label, transports = [], []
    for s, t, label in zip(student, teacher, labels, strict=True):
        of_label.append(-probabilities(t)[label] * np.log(probabilities(s)[label]))
        w1, w2 = (probabilities(np.delete(each, label) / temperature) for each in (s, t))
        cost = np.maximum(np.delete(np.delete(sharpened, label, 0), label, 1), 0) + 1e-8
        kernel = np.exp(-cost / regularisation)
        u = np.full(len(w1), 1 / len(w1))
        for _ in range(iterations):
            v = w2 / (kernel.T @ u + 1e-8)
            u = w1 / (kernel @ v + 1e-8)
        transports.append((np.outer(u, v) * kernel * cost).sum())
    return float(np.mean(of_label) + weight * np.mean(transports))


def released_sdd_kd(student: Floats, teacher: Floats, labels: Floats, *, temperature: float) -> float:
    """`sdd_kd_loss` of mdistiller/distillers/KD.py, github.com/shicaiwei123/SDD-CVPR2024 at commit e412036.

    Args:
        student: (B, C, N), logits of N regions. The first is the whole image.
        teacher: (B, C, N).
        labels: (B,).
        temperature: divides both logits.
    """
    total = 0.0
    for s, t, label in zip(student, teacher, labels, strict=True):
        whole_is_right = int(np.argmax(t[:, 0])) == label
        for region in range(t.shape[1]):
            is_right = int(np.argmax(t[:, region])) == label
            divergence = kl(probabilities(t[:, region] / temperature), probabilities(s[:, region] / temperature))
            total += temperature**2 * divergence * (1.0 if is_right == whole_is_right else 2.0)
    return total / (len(labels) * teacher.shape[2])


def linear_cka_by_centring(first: Floats, second: Floats) -> float:
    """`linear_CKA` of tools/generate_cost_matrix.py in WKD's code: both kernels centred from both sides."""

    def hsic(a: Floats, b: Floats) -> float:
        centre = np.eye(len(a)) - 1 / len(a)
        return float(((centre @ a @ a.T @ centre) * (centre @ b @ b.T @ centre)).sum())

    return hsic(first, second) / np.sqrt(hsic(first, first) * hsic(second, second))


def slope(function: Callable[[Floats], float], point: Floats) -> Floats:
    """Central differences of a scalar function at a point of any shape."""
    found, step = np.zeros_like(point), 1e-6
    for place in np.ndindex(point.shape):
        moved = [point.copy(), point.copy()]
        moved[0][place] += step
        moved[1][place] -= step
        found[place] = (function(moved[0]) - function(moved[1])) / (2 * step)
    return found
