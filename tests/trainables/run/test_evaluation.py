import base64
import math

import numpy as np
import pytest
import torch

from trainables.run.evaluation import (
    answers_of,
    calibration_of,
    gaps_by_class,
    measures_on_test,
    validation_measures,
)
from trainables.spec.measures import VALIDATION_MEASURES

STUDENT = torch.tensor([[math.log(3), 0.0], [0.0, 0.0], [0.0, math.log(3)]])
TEACHER = torch.tensor([[math.log(8), 0.0], [math.log(8), 0.0], [math.log(8), 0.0]])
ADAPTED = torch.tensor([[0.0, math.log(5)], [math.log(5), 0.0], [0.0, math.log(5)]])
LABELS = torch.tensor([0, 0, 1])
ADAPTER_MEASURES = {"val/accuracy_adapted", "val/sharpness_adapted", "val/entropy_adapted", "val/ece_adapted"}


PEER_MEASURES = {"val/accuracy_peer"}


def test_a_teacher_an_adapter_and_a_peer_give_every_measure():
    given = {"teacher_logits": TEACHER, "adapted_logits": ADAPTED, "peer_logits": ADAPTED}
    measures = validation_measures(STUDENT, LABELS, temperature=2.0, **given)
    assert set(measures) == set(VALIDATION_MEASURES)
    assert measures["val/accuracy_peer"] == measures["val/accuracy_adapted"]


def test_a_peer_stands_for_a_teacher_that_is_not_there():
    measures = validation_measures(STUDENT, LABELS, temperature=2.0, peer_logits=TEACHER)
    with_teacher = validation_measures(STUDENT, LABELS, temperature=2.0, teacher_logits=TEACHER)
    del with_teacher["val/sharpness_gap_frozen"]
    assert measures == with_teacher | {"val/accuracy_peer": pytest.approx(2 / 3)}


def test_without_an_adapter_its_own_measures_are_left_out():
    measures = validation_measures(STUDENT, LABELS, temperature=2.0, teacher_logits=TEACHER)
    assert set(measures) == set(VALIDATION_MEASURES) - ADAPTER_MEASURES - PEER_MEASURES


def test_without_a_teacher_only_the_students_measures_are_left():
    assert set(validation_measures(STUDENT, LABELS, temperature=2.0)) == {
        "val/accuracy",
        "val/loss",
        "val/sharpness_student",
        "val/entropy_student",
        "val/ece_student",
    }


def test_with_an_adapter_the_gap_is_adapted_minus_student_and_the_frozen_gap_is_not():
    measures = validation_measures(STUDENT, LABELS, temperature=2.0, teacher_logits=TEACHER, adapted_logits=ADAPTED)
    student = (2 * math.log(4) + math.log(2)) / 3
    assert measures["val/sharpness_gap"] == pytest.approx(math.log(6) - student)
    assert measures["val/sharpness_gap_frozen"] == pytest.approx(math.log(9) - student)
    soft_student = (2 * math.log(1 + math.sqrt(3)) + math.log(2)) / 3
    assert measures["val/sharpness_gap_tempered"] == pytest.approx(math.log(1 + math.sqrt(5)) - soft_student)
    assert measures["val/agreement"] == pytest.approx(2 / 3)  # rows 2 and 3; a tie goes to the first class


def test_without_an_adapter_gap_and_agreement_are_with_the_frozen_teacher():
    measures = validation_measures(STUDENT, LABELS, temperature=1.0, teacher_logits=TEACHER)
    assert measures["val/sharpness_gap"] == measures["val/sharpness_gap_frozen"]
    assert measures["val/sharpness_gap"] == measures["val/sharpness_gap_tempered"]
    assert measures["val/agreement"] == pytest.approx(2 / 3)  # rows 1 and 2


def test_each_accuracy_is_of_its_own_network():
    measures = validation_measures(
        STUDENT, LABELS, temperature=1.0, teacher_logits=TEACHER, adapted_logits=ADAPTED.flip(1)
    )
    assert measures["val/accuracy"] == pytest.approx(1.0)
    assert measures["val/accuracy_teacher"] == pytest.approx(2 / 3)
    assert measures["val/accuracy_adapted"] == pytest.approx(1 / 3)


def test_the_calibration_error_of_the_teacher_is_of_its_own_confidence():
    measures = validation_measures(STUDENT, LABELS, temperature=2.0, teacher_logits=TEACHER)
    assert measures["val/ece_teacher"] == pytest.approx(abs(2 / 3 - 8 / 9))


def test_calibration_is_in_whole_numbers_of_predictions_and_leaves_out_who_is_not_there():
    found = calibration_of(LABELS, {"teacher": TEACHER.float(), "adapted": None})
    assert set(found) == {"teacher"}
    sums = found["teacher"]
    place = 13  # bin of 8/9 among 15 bins
    assert sums["count"] == [3 * (bin_ == place) for bin_ in range(15)]
    assert sums["correct"] == [2 * (bin_ == place) for bin_ in range(15)]
    assert {type(each) for each in sums["count"] + sums["correct"]} == {int}
    assert sum(sums["confidence"]) == pytest.approx(8 / 3)


def test_a_task_is_measured_by_its_own_metrics_too():
    logits = torch.tensor([[0.0, 1.0], [0.0, 1.0], [1.0, 0.0], [0.0, 1.0], [1.0, 0.0]])
    labels = torch.tensor([1, 1, 1, 0, 0])
    measures = validation_measures(logits, labels, temperature=1.0, metrics=("accuracy", "matthews", "f1"))
    assert measures["val/matthews"] == pytest.approx(1 / 6)
    assert measures["val/f1"] == pytest.approx(2 / 3)
    plain = validation_measures(logits, labels, temperature=1.0)
    assert plain == {name: value for name, value in measures.items() if name not in ("val/matthews", "val/f1")}
    assert measures_on_test(logits, labels, ("accuracy", "f1")) == pytest.approx(
        {"test/accuracy": 0.6, "test/f1": 2 / 3}
    )


def test_the_answers_are_one_bit_per_sample_and_sums_per_class():
    logits = torch.tensor([[2.0, 0.0, 0.0], [2.0, 0.0, 0.0], [0.0, 2.0, 0.0]]).repeat(3, 1)
    labels = torch.tensor([0, 1, 1]).repeat(3)
    found = answers_of(logits, labels)
    bits = np.unpackbits(np.frombuffer(base64.b64decode(found["bits"]), np.uint8))
    assert bits.tolist() == [1, 0, 1, 1, 0, 1, 1, 0, 1, *[0] * 7]
    assert (found["samples"], found["count"], found["correct"]) == (9, [3, 6, 0], [3, 3, 0])


def test_the_gaps_of_the_classes_add_up_to_the_gap_of_the_split():
    found = gaps_by_class(TEACHER, STUDENT, LABELS)
    measures = validation_measures(STUDENT, LABELS, temperature=1.0, teacher_logits=TEACHER)
    assert found["gap_count"] == [2, 1]
    assert sum(found["gap"]) / 3 == pytest.approx(measures["val/sharpness_gap"])
    assert found["gap"][1] == pytest.approx(math.log(9) - math.log(4))
