import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax

from trainables.losses import kd_loss


def random_logits(rows: int = 5, classes: int = 7, *, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_kd_loss_has_the_value_computed_by_hand():
    # Teacher (3/4, 1/4) and student (1/2, 1/2): KL = 3/4 ln(3/2) + 1/4 ln(1/2).
    teacher = torch.tensor([[math.log(3), 0.0]])
    student = torch.zeros(1, 2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kd_loss(student, teacher, temperature=1.0).item() == pytest.approx(expected, rel=1e-6)


def test_temperature_divides_the_logits_and_its_square_multiplies_the_loss():
    # At temperature 2 logits 2 ln 3 soften to the same (3/4, 1/4); the result is four times as large.
    teacher = torch.tensor([[2 * math.log(3), 0.0]])
    expected = 4 * (0.75 * math.log(1.5) + 0.25 * math.log(0.5))
    assert kd_loss(torch.zeros(1, 2), teacher, temperature=2.0).item() == pytest.approx(expected, rel=1e-6)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 4.0, 20.0])
def test_kd_loss_agrees_with_numpy_in_float64(temperature):
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    log_p = log_softmax(teacher.numpy() / temperature, axis=1)
    log_q = log_softmax(student.numpy() / temperature, axis=1)
    expected = temperature**2 * np.mean(np.sum(np.exp(log_p) * (log_p - log_q), axis=1))
    assert kd_loss(student, teacher, temperature=temperature).item() == pytest.approx(expected, rel=1e-12)


def test_kd_loss_and_its_gradients_vanish_where_both_predict_the_same():
    student = random_logits().requires_grad_()
    teacher = random_logits().requires_grad_()
    loss = kd_loss(student, teacher, temperature=3.0)
    loss.backward()
    assert loss.item() == 0.0
    assert student.grad.abs().max() < 1e-15
    assert teacher.grad.abs().max() < 1e-15


def test_kd_loss_is_positive_where_predictions_differ_and_not_symmetric():
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    there = kd_loss(student, teacher, temperature=1.0).item()
    back = kd_loss(teacher, student, temperature=1.0).item()
    assert there > 0
    assert back > 0
    assert there != pytest.approx(back, rel=1e-3)


def test_kd_loss_does_not_see_constants_added_to_a_row():
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    shift = torch.arange(5, dtype=torch.float64)[:, None]
    shifted = kd_loss(student + shift, teacher - 2 * shift, temperature=4.0).item()
    assert shifted == pytest.approx(kd_loss(student, teacher, temperature=4.0).item(), rel=1e-12)


def test_kd_loss_is_the_mean_over_the_batch():
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    rows = [kd_loss(student[i : i + 1], teacher[i : i + 1], temperature=2.0).item() for i in range(5)]
    assert kd_loss(student, teacher, temperature=2.0).item() == pytest.approx(np.mean(rows), rel=1e-12)


def test_kd_loss_stays_finite_for_huge_logits():
    student = torch.tensor([[1e4, -1e4]], requires_grad=True)
    loss = kd_loss(student, torch.tensor([[-1e4, 1e4]]), temperature=1.0)
    loss.backward()
    assert loss.item() == pytest.approx(2e4)
    assert student.grad.isfinite().all()


def test_gradients_of_kd_loss_into_both_arguments_are_right():
    student = random_logits(3, 4, seed=1).requires_grad_()
    teacher = random_logits(3, 4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda s, t: kd_loss(s, t, temperature=2.5), (student, teacher))
