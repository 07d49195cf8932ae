"""The validation measures of a trial, and how well calibrated its networks are, from logits."""

from collections.abc import Collection
from typing import Final, TypeAlias

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from trainables.data.text.metrics import METRICS
from trainables.losses.sharpness import entropy, expected_calibration_error, reliability, sharpness, sharpness_gap
from trainables.spec.glue import Metric
from trainables.spec.measures import ACCURACY, SHARPNESS_GAP

# How many predictions each bin holds, the sum of their confidences, and how many are right; see
# `trainables.spec.measures`.
Calibration: TypeAlias = dict[str, dict[str, list[float]]]
_ACCURACY_ALONE: Final[tuple[Metric, ...]] = ("accuracy",)


def validation_measures(
    student_logits: Tensor,
    labels: Tensor,
    *,
    temperature: float,
    teacher_logits: Tensor | None = None,
    adapted_logits: Tensor | None = None,
    peer_logits: Tensor | None = None,
    metrics: Collection[Metric] = _ACCURACY_ALONE,
) -> dict[str, float]:
    """All measures that the given logits allow, by the names of `trainables.spec.measures`.

    What the student is compared with in the gaps and in the agreement is the adapted teacher where there is
    an adapter, and the frozen teacher otherwise: what its student is taught by. `val/sharpness_gap_frozen` is
    always against the frozen teacher. A control that has no teacher is compared with the study's, if that is
    given, so that the gap of a student that was never taught stands beside the others'. A peer stands for the teacher
    where there is none.

    Args:
        student_logits: (B, C).
        labels: (B,) int64.
        temperature: the trial's, for `val/sharpness_gap_tempered`.
        teacher_logits: (B, C), the frozen teacher's.
        adapted_logits: (B, C).
        peer_logits: (B, C), of a network that learnt beside the student.
        metrics: of the dataset, beside accuracy.

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
    # One transfer for all of them: each .item() would wait for the device.
    values = torch.stack(list(measures.values())).tolist()
    return dict(zip(measures, values, strict=True))


def measures_on_test(logits: Tensor, labels: Tensor, metrics: Collection[Metric] = _ACCURACY_ALONE) -> dict[str, float]:
    """`test/...`: the metrics of a dataset.

    Args:
        logits: (B, C), the student's.
        labels: (B,) int64.
        metrics: of the dataset.
    """
    predictions = logits.argmax(dim=1)
    return {f"test/{name}": METRICS[name](predictions, labels).item() for name in metrics}


def calibration_of(labels: Tensor, logits: dict[str, Tensor | None]) -> Calibration:
    """What reliability diagrams are drawn of, computed in float64.

    Args:
        labels: (B,) int64.
        logits: (B, C) by what of `CALIBRATION` they are; a network that is not there is left out.
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
