"""A trial's validation and test measures, and the networks' calibration data, computed from logits."""

import base64
from collections.abc import Collection, Sequence
from typing import Final, TypeAlias

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trainables.data.text.metrics import METRICS
from trainables.losses.sharpness import entropy, expected_calibration_error, reliability, sharpness, sharpness_gap
from trainables.spec.glue import Metric
from trainables.spec.measures import ACCURACY, SHARPNESS_GAP, TEACHER_GAPS

# For each bin: number of predictions, sum of confidences, number of correct predictions; see
# `trainables.spec.measures`.
Calibration: TypeAlias = dict[str, dict[str, list[float]]]
# Of a confirmed trial: `samples`, number of test samples; `bits`, in base64, whether each is correct; and for each
# class `count` and `correct`, test samples, and `gap_count` and `gap`, validation samples and the sum of their gaps.
Answers: TypeAlias = dict[str, int | str | list[float]]
_ACCURACY_ALONE: Final[tuple[Metric, ...]] = ("accuracy",)


def validation_measures(
    student_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    teacher_logits: Tensor | None = None,
    adapted_logits: Tensor | None = None,
    peer_logits: Tensor | None = None,
    member_logits: Sequence[Tensor] = (),
    metrics: Collection[Metric] = _ACCURACY_ALONE,
) -> dict[str, float]:
    """Compute all possible measures for the given logits, named as in `trainables.spec.measures`.

    The gaps and the agreement compare the student with the adapted teacher if there is one, otherwise with the frozen
    teacher. `val/sharpness_gap_frozen` always uses the frozen teacher. A control without a teacher is compared with
    the study's frozen teacher if `teacher_logits` is given, so all students of a study have a gap. Without teacher
    logits, the peer takes the teacher's place.

    Args:
        student_logits: (B, C).
        labels: (B,) int64.
        temperature: trial temperature, used for `val/sharpness_gap_tempered`.
        teacher_logits: (B, C), frozen teacher's logits.
        adapted_logits: (B, C), adapted teacher's logits.
        peer_logits: (B, C), logits of a peer trained together with the student.
        member_logits: (B, C) of each ensemble member; empty for a single teacher.
        metrics: dataset metrics; accuracy is always computed.

    Returns:
        Means over the samples, computed in float64.
    """
    student = student_logits.double()
    measures = {
        ACCURACY: _accuracy(student, labels),
        "val/loss": cross_entropy(student, labels),
        "val/sharpness_student": sharpness(student).mean(),
        "val/entropy_student": entropy(student).mean(),
        "val/ece_student": expected_calibration_error(student, labels),
    }
    predictions = student.argmax(dim=1)
    measures |= {f"val/{name}": METRICS[name](predictions, labels) for name in metrics if name != "accuracy"}
    if peer_logits is not None:
        measures["val/accuracy_peer"] = _accuracy(peer_logits, labels)
    if teacher_logits is not None:
        measures["val/sharpness_gap_frozen"] = sharpness_gap(teacher_logits.double(), student)
    for name, member in zip(TEACHER_GAPS, member_logits, strict=False):
        measures[name] = sharpness_gap(member.double(), student)
    standing = peer_logits if teacher_logits is None else teacher_logits
    if standing is not None:
        teacher = standing.double()
        target = teacher if adapted_logits is None else adapted_logits.double()
        measures |= {
            "val/accuracy_teacher": _accuracy(teacher, labels),
            "val/sharpness_teacher": sharpness(teacher).mean(),
            "val/ece_teacher": expected_calibration_error(teacher, labels),
            SHARPNESS_GAP: sharpness_gap(target, student),
            "val/sharpness_gap_tempered": sharpness_gap(target, student, temperature=temperature),
            "val/sharpness_gap_centred": sharpness_gap(target, student, centred=True),
            "val/agreement": (target.argmax(dim=1) == predictions).double().mean(),
        }
    if adapted_logits is not None:
        adapted = adapted_logits.double()
        measures |= {
            "val/accuracy_adapted": _accuracy(adapted, labels),
            "val/sharpness_adapted": sharpness(adapted).mean(),
            "val/entropy_adapted": entropy(adapted).mean(),
            "val/ece_adapted": expected_calibration_error(adapted, labels),
        }
    # One transfer for all values: each .item() would wait for the device.
    values = torch.stack(list(measures.values())).tolist()
    return dict(zip(measures, values, strict=True))


def measures_on_test(logits: Tensor, labels: Tensor, metrics: Collection[Metric] = _ACCURACY_ALONE) -> dict[str, float]:
    """Compute `test/*`, the dataset's metrics.

    Args:
        logits: (B, C), student logits.
        labels: (B,) int64.
        metrics: dataset metrics.
    """
    predictions = logits.argmax(dim=1)
    return {f"test/{name}": METRICS[name](predictions, labels).item() for name in metrics}


def answers_of(logits: Tensor, labels: Tensor) -> Answers:
    """Return which test samples a student classifies correctly, and the counts per class.

    Args:
        logits: (B, C), student logits.
        labels: (B,) int64.
    """
    correct = logits.argmax(dim=1) == labels
    bits = np.packbits(correct.cpu().numpy())
    counts = (torch.bincount(each, minlength=logits.shape[1]).tolist() for each in (labels, labels[correct]))
    return {
        "samples": len(labels),
        "bits": base64.b64encode(bits.tobytes()).decode("ascii"),
        **dict(zip(("count", "correct"), counts, strict=True)),
    }


def gaps_by_class(target: Tensor, student: Tensor, labels: Tensor) -> Answers:
    """Return, per class, the sum of the validation samples' sharpness gaps, and the number of samples.

    Args:
        target: (B, C), logits of the adapted teacher if there is one, else of the frozen teacher.
        student: (B, C), student logits.
        labels: (B,) int64.
    """
    gaps, classes = sharpness(target.double()) - sharpness(student.double()), student.shape[1]
    return {
        "gap_count": torch.bincount(labels, minlength=classes).tolist(),
        "gap": torch.bincount(labels, weights=gaps, minlength=classes).tolist(),
    }


def calibration_of(labels: Tensor, logits: dict[str, Tensor | None]) -> Calibration:
    """Compute the data for reliability diagrams in float64.

    Args:
        labels: (B,) int64.
        logits: (B, C) logits, keyed by names of `CALIBRATION`. Networks with None are left out.
    """
    found = {name: reliability(each.double(), labels) for name, each in logits.items() if each is not None}
    return {name: _sums(*each.tolist()) for name, each in found.items()}


def _sums(count: list[float], confidence: list[float], correct: list[float]) -> dict[str, list[float]]:
    return {
        "count": [int(each) for each in count],
        "confidence": confidence,
        "correct": [int(each) for each in correct],
    }


def _accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    return (logits.argmax(dim=1) == labels).double().mean()
