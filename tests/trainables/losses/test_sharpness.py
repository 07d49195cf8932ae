import math

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch

from trainables.losses.sharpness import (
    centred_sharpness,
    entropy,
    expected_calibration_error,
    reliability,
    sharpness,
    sharpness_gap,
)


def random_logits(rows: int = 200, classes: int = 6, *, seed: int = 0) -> torch.Tensor:
    return 2 * torch.randn(rows, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_sharpness_has_the_values_computed_by_hand():
    logits = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    assert sharpness(logits).tolist() == pytest.approx([math.log(2), math.log(4)])


def test_temperature_divides_the_logits_inside_the_sharpness():
    logits = torch.tensor([[2 * math.log(3), 0.0]])
    assert sharpness(logits, temperature=2.0).tolist() == pytest.approx([math.log(4)])


def test_centred_sharpness_has_the_values_computed_by_hand():
    # The mean logit of the second row is ln 3, so -ln 3, 0 and ln 3 remain: 1/3 + 1 + 3.
    logits = torch.tensor([[5.0, 5.0, 5.0], [0.0, math.log(3), math.log(9)]])
    assert centred_sharpness(logits).tolist() == pytest.approx([math.log(3), math.log(13 / 3)], rel=1e-6)


def test_a_constant_added_moves_the_sharpness_but_not_the_centred_one():
    logits = random_logits()
    assert torch.allclose(sharpness(logits + 7), sharpness(logits) + 7)
    assert torch.allclose(sharpness(logits + 7, temperature=2.0), sharpness(logits, temperature=2.0) + 3.5)
    assert torch.allclose(centred_sharpness(logits + 7), centred_sharpness(logits))


def test_centred_sharpness_is_least_for_a_uniform_prediction():
    assert (centred_sharpness(random_logits()) > math.log(6)).all()


def test_the_gap_is_the_mean_of_teacher_minus_student():
    teacher = torch.tensor([[0.0, 0.0], [math.log(3), 0.0]])
    student = torch.zeros(2, 2)
    assert sharpness_gap(teacher, student).item() == pytest.approx(math.log(2) / 2)
    assert sharpness_gap(student, teacher).item() == pytest.approx(-math.log(2) / 2)


def test_the_gap_at_a_temperature_softens_both_sides():
    teacher, student = random_logits(seed=1), random_logits(seed=2)
    expected = (sharpness(teacher, temperature=4.0) - sharpness(student, temperature=4.0)).mean()
    assert sharpness_gap(teacher, student, temperature=4.0).item() == pytest.approx(expected.item())


def test_a_constant_closes_the_gap_of_the_paper_and_leaves_the_centred_one():
    teacher, student = random_logits(seed=1), 0.1 * random_logits(seed=2)
    gap = sharpness_gap(teacher, student)
    closed = student + gap
    assert sharpness_gap(teacher, closed).item() == pytest.approx(0, abs=1e-12)
    centred = sharpness_gap(teacher, student, centred=True).item()
    assert centred > 0.1
    assert sharpness_gap(teacher, closed, centred=True).item() == pytest.approx(centred)


def test_entropy_has_the_values_computed_by_hand():
    logits = torch.tensor([[1.0, 1.0, 1.0, 1.0], [100.0, 0.0, 0.0, 0.0]])
    assert entropy(logits).tolist() == pytest.approx([math.log(4), 0.0], abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_entropy_agrees_with_scipy_and_ignores_constants(temperature):
    logits = random_logits()
    expected = scipy.stats.entropy(scipy.special.softmax(logits.numpy() / temperature, axis=1), axis=1)
    np.testing.assert_allclose(entropy(logits, temperature=temperature).numpy(), expected, rtol=1e-12)
    np.testing.assert_allclose(entropy(logits + 3, temperature=temperature).numpy(), expected, rtol=1e-12)


def test_calibration_error_has_the_value_computed_by_hand():
    # Confidences 0.75 (correct), 0.75 (wrong) and 0.9 (correct). With 2 bins, all are in the upper one.
    logits = torch.tensor([[math.log(3), 0.0], [math.log(3), 0.0], [math.log(9), 0.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1, 0])
    assert expected_calibration_error(logits, labels, bins=2).item() == pytest.approx(abs(2 / 3 - 0.8))
    # With 15 bins, 0.75 is in (11/15, 12/15] and 0.9 in (13/15, 14/15].
    apart = (2 * abs(1 / 2 - 0.75) + abs(1 - 0.9)) / 3
    assert expected_calibration_error(logits, labels).item() == pytest.approx(apart)


def test_a_confidence_on_an_edge_belongs_to_the_bin_below():
    # Confidence 0.5 exactly (correct) and 0.55 (wrong): they cancel in one bin and not in two.
    logits = torch.tensor([[0.0, 0.0], [math.log(0.55 / 0.45), 0.0]], dtype=torch.float64)
    labels = torch.tensor([0, 1])
    assert expected_calibration_error(logits, labels, bins=2).item() == pytest.approx((0.5 + 0.55) / 2)


def test_calibration_error_agrees_with_a_loop_over_bins():
    logits = random_logits()
    labels = torch.randint(6, (200,), generator=torch.Generator().manual_seed(3))
    probabilities = scipy.special.softmax(logits.numpy(), axis=1)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels.numpy()
    expected = 0.0
    for low in range(15):
        chosen = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        if chosen.any():
            expected += chosen.mean() * abs(right[chosen].mean() - confidence[chosen].mean())
    assert expected_calibration_error(logits, labels).item() == pytest.approx(expected, rel=1e-12)


def test_certain_and_right_predictions_are_perfectly_calibrated():
    logits = torch.tensor([[1000.0, 0.0], [0.0, 1000.0]])
    assert expected_calibration_error(logits, torch.tensor([0, 1])).item() == 0.0
    assert expected_calibration_error(logits, torch.tensor([1, 0])).item() == 1.0


def test_reliability_agrees_with_a_loop_over_bins_in_float64_and_its_calibration_error_is_the_measure():
    logits = random_logits()
    labels = torch.randint(6, (200,), generator=torch.Generator().manual_seed(3))
    probabilities = scipy.special.softmax(logits.numpy(), axis=1)
    confidence, right = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels.numpy()
    expected = np.zeros((3, 15))
    for low in range(15):
        chosen = (confidence > low / 15) & (confidence <= (low + 1) / 15)
        expected[:, low] = chosen.sum(), confidence[chosen].sum(), right[chosen].sum()
    found = reliability(logits, labels)
    assert found.dtype == torch.float64
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-12, atol=1e-12)
    count, confident, correct = found
    assert count.sum() == 200
    error = expected_calibration_error(logits, labels).item()
    assert ((correct - confident).abs().sum() / 200).item() == pytest.approx(error, rel=1e-12)


def test_reliability_has_the_bins_computed_by_hand():
    # Confidence 0.5 exactly (correct) belongs to the bin below, 0.9 (wrong) to the one above.
    logits = torch.tensor([[0.0, 0.0], [math.log(9), 0.0]], dtype=torch.float64)
    count, confident, correct = reliability(logits, torch.tensor([0, 1]), bins=2).tolist()
    assert (count, correct) == ([1.0, 1.0], [1.0, 0.0])
    assert confident == pytest.approx([0.5, 0.9])
