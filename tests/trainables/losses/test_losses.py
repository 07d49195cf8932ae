import math

import numpy as np
import pytest
import torch
from scipy.special import log_softmax, softmax

from trainables.losses.labelled import nkd_loss, pld_loss, rld_loss
from trainables.losses.levels import mlkd_loss
from trainables.losses.logits import (
    atkd_loss,
    dist_loss,
    dkd_loss,
    dtkd_loss,
    kd_loss,
    probability_mse_loss,
    standardised_kd_loss,
    ttm_loss,
)
from trainables.losses.sharpness import centred_sharpness
from trainables.losses.transport import wkd_loss


def random_logits(rows: int = 5, classes: int = 7, *, seed: int = 0) -> torch.Tensor:
    return 3 * torch.randn(rows, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def test_kd_loss_has_the_value_computed_by_hand():
    # Teacher (3/4, 1/4) and student (1/2, 1/2): KL = 3/4 ln(3/2) + 1/4 ln(1/2).
    teacher = torch.tensor([[math.log(3), 0.0]])
    student = torch.zeros(1, 2)
    expected = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    assert kd_loss(student, teacher, temperature=1.0).item() == pytest.approx(expected, rel=1e-6)


def test_temperature_divides_the_logits_and_its_square_multiplies_the_loss():
    # At temperature 2, logits 2 ln 3 soften to the same (3/4, 1/4). The result is four times as large.
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


LABELS = torch.tensor([0, 6, 2, 3, 3])


def labels_of(logits: torch.Tensor) -> torch.Tensor:
    return LABELS[: len(logits)] % logits.shape[1]


def distances_of(logits: torch.Tensor) -> torch.Tensor:
    place = torch.linspace(0, 1, logits.shape[1], dtype=logits.dtype)
    return (place[:, None] - place).abs()


# Every loss as a function of (student, teacher). The settings differ from each other and from 1, so none can cancel.
LOSSES = {
    "mse": lambda s, t: probability_mse_loss(s, t, temperature=2.0),
    "dkd": lambda s, t: dkd_loss(s, t, labels_of(s), temperature=2.0, alpha=0.7, beta=3.0),
    "dist": lambda s, t: dist_loss(s, t, temperature=2.0, beta=0.7, gamma=3.0),
    "standardised": lambda s, t: standardised_kd_loss(s, t, temperature=2.0),
    "atkd": lambda s, t: atkd_loss(s, t, temperature=0.8),
    "dtkd": lambda s, t: dtkd_loss(s, t, temperature=2.0),
    "ttm": lambda s, t: ttm_loss(s, t, gamma=0.4),
    "wttm": lambda s, t: ttm_loss(s, t, gamma=0.4, weighted=True),
    "mlkd": lambda s, t: mlkd_loss(s, t, temperature=2.0, batch_weight=0.7, class_weight=3.0),
    "rld": lambda s, t: rld_loss(s, t, labels_of(s), temperature=2.0, alpha=0.7, beta=3.0),
    "nkd": lambda s, t: nkd_loss(s, t, labels_of(s), temperature=2.0, gamma=1.5),
    "pld": lambda s, t: pld_loss(s, t, labels_of(s), temperature=2.0),
    "wkd": lambda s, t: wkd_loss(s, t, labels_of(s), distances_of(s), temperature=2.0, weight=5.0, sharpening=1.5),
}
# They learn from the label too, so they do not vanish where student and teacher say the same.
OF_LABELS = ("rld", "nkd", "pld", "wkd")
EVERY_LOSS = pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)


def kl(p: np.ndarray, q: np.ndarray) -> np.ndarray:
    return np.sum(p * (np.log(p) - np.log(q)), axis=-1)


def pearson(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.corrcoef(a, b)[0, 1])


# The temperatures of dtkd depend on the largest logits, so adding a constant changes them. dtkd has a separate test.
@pytest.mark.conformance
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "dtkd"])
def test_a_loss_does_not_see_constants_added_to_a_row(name):
    loss = LOSSES[name]
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    shift = torch.arange(5, dtype=torch.float64)[:, None]
    assert loss(student + shift, teacher - 2 * shift).item() == pytest.approx(loss(student, teacher).item(), rel=1e-12)


@pytest.mark.conformance
@EVERY_LOSS
def test_a_loss_is_positive_where_predictions_differ(loss):
    assert loss(random_logits(seed=1), random_logits(seed=2)).item() > 1e-4


@pytest.mark.conformance
@pytest.mark.parametrize("name", [name for name in LOSSES if name not in ("ttm", "wttm", *OF_LABELS)])
def test_a_loss_and_its_gradient_vanish_where_student_and_teacher_say_the_same(name):
    student = random_logits().requires_grad_()
    loss = LOSSES[name](student, random_logits())
    loss.backward()
    # dist divides by a deviation plus a small constant, against division by zero, so the loss is not exactly 0.
    bound = 1e-5 if name == "dist" else 1e-12
    assert abs(loss.item()) < bound
    assert student.grad.abs().max() < bound


@pytest.mark.conformance
@EVERY_LOSS
def test_a_loss_sees_the_batch_in_any_order(loss):
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    order = torch.tensor([0, 1, 2, 4, 3])  # rows with equal labels change places
    assert loss(student[order], teacher[order]).item() == pytest.approx(loss(student, teacher).item(), rel=1e-12)


# The gradient treats the temperatures of atkd as constants, a finite difference does not. atkd has a separate test.
@pytest.mark.conformance
@pytest.mark.parametrize("name", [name for name in LOSSES if name != "atkd"])
def test_the_students_gradient_is_what_differences_say(name):
    student = random_logits(3, 4, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: LOSSES[name](s, random_logits(3, 4, seed=2)), (student,))


@pytest.mark.parametrize("name", ["mse", "dkd", "dist", "standardised", "mlkd", "rld"])
def test_the_gradient_that_an_adapter_gets_is_what_differences_say(name):
    teacher = random_logits(3, 4, seed=2).requires_grad_()
    assert torch.autograd.gradcheck(lambda t: LOSSES[name](random_logits(3, 4, seed=1), t), (teacher,))


@pytest.mark.conformance
@EVERY_LOSS
@pytest.mark.parametrize("rows", [1, 2])
@pytest.mark.parametrize("classes", [2, 7])
def test_a_loss_and_its_gradients_are_finite_for_few_samples_and_flat_logits(loss, rows, classes):
    for student, teacher in (
        (torch.zeros(rows, classes), torch.zeros(rows, classes)),
        (torch.zeros(rows, classes), random_logits(rows, classes).float()),
        (random_logits(rows, classes).float(), torch.zeros(rows, classes)),
        (100 * random_logits(rows, classes).float(), -100 * random_logits(rows, classes).float()),
    ):
        student.requires_grad_()
        teacher.requires_grad_()
        value = loss(student, teacher)
        value.backward()
        assert value.isfinite()
        assert student.grad.isfinite().all()
        assert teacher.grad is None or teacher.grad.isfinite().all()


@pytest.mark.conformance
@EVERY_LOSS
def test_a_teacher_that_is_not_a_number_shows_in_the_loss(loss):
    teacher = random_logits(seed=2)
    teacher[3, 2] = float("nan")
    assert loss(random_logits(seed=1), teacher).isnan()


def test_probability_mse_has_the_value_computed_by_hand():
    # Teacher (3/4, 1/4), student (1/2, 1/2): both classes differ by 1/4. At temperature 2, twice the logits give four
    # times the loss.
    student, teacher = torch.zeros(1, 2), torch.tensor([[math.log(3), 0.0]])
    assert probability_mse_loss(student, teacher, temperature=1.0).item() == pytest.approx(1 / 16)
    assert probability_mse_loss(student, 2 * teacher, temperature=2.0).item() == pytest.approx(1 / 4)


def test_probability_mse_agrees_with_numpy():
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    difference = softmax(student.numpy() / 3, axis=1) - softmax(teacher.numpy() / 3, axis=1)
    ours = probability_mse_loss(student, teacher, temperature=3.0).item()
    assert ours == pytest.approx(9 * np.mean(difference**2), rel=1e-12)


@pytest.mark.parametrize("temperature", [1.0, 4.0])
@pytest.mark.parametrize(("alpha", "beta"), [(1.0, 0.0), (0.0, 1.0), (1.0, 8.0)])
def test_dkd_agrees_with_numpy(temperature, alpha, beta):
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    p, q = softmax(teacher.numpy() / temperature, axis=1), softmax(student.numpy() / temperature, axis=1)
    expected = 0.0
    for row, label in enumerate(LABELS.tolist()):
        py, qy = p[row, label], q[row, label]
        others = [c for c in range(7) if c != label]
        expected += alpha * kl(np.array([py, 1 - py]), np.array([qy, 1 - qy]))
        expected += beta * kl(p[row, others] / p[row, others].sum(), q[row, others] / q[row, others].sum())
    ours = dkd_loss(student, teacher, LABELS, temperature=temperature, alpha=alpha, beta=beta).item()
    assert ours == pytest.approx(temperature**2 * expected / 5, rel=1e-10)


def test_kd_is_the_sum_of_dkds_parts_with_the_teachers_doubt_as_weight():
    for row in range(5):
        student, teacher, label = random_logits(seed=1)[[row]], random_logits(seed=2)[[row]], LABELS[[row]]
        doubt = 1 - torch.softmax(teacher / 3, dim=1)[0, label].item()
        ours = dkd_loss(student, teacher, label, temperature=3.0, alpha=1.0, beta=doubt).item()
        assert ours == pytest.approx(kd_loss(student, teacher, temperature=3.0).item(), rel=1e-10)


def test_of_two_classes_dkd_has_the_first_part_alone():
    student, teacher = random_logits(classes=2, seed=1), random_logits(classes=2, seed=2)
    ours = dkd_loss(student, teacher, LABELS % 2, temperature=3.0, alpha=1.0, beta=100.0).item()
    assert ours == pytest.approx(kd_loss(student, teacher, temperature=3.0).item(), rel=1e-10)


def test_the_other_classes_part_of_dkd_does_not_see_the_labels_logit():
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    moved = student.clone()
    moved[torch.arange(5), LABELS] += 5.0
    ours = [dkd_loss(s, teacher, LABELS, temperature=2.0, alpha=0.0, beta=1.0).item() for s in (student, moved)]
    assert ours[0] == pytest.approx(ours[1], rel=1e-12)


def test_dist_agrees_with_numpy():
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    p, q = softmax(teacher.numpy() / 3, axis=1), softmax(student.numpy() / 3, axis=1)
    rows = np.mean([1 - pearson(p[i], q[i]) for i in range(5)])
    columns = np.mean([1 - pearson(p[:, c], q[:, c]) for c in range(7)])
    ours = dist_loss(student, teacher, temperature=3.0, beta=0.7, gamma=2.0).item()
    assert ours == pytest.approx(9 * (0.7 * rows + 2.0 * columns), rel=1e-6)


def test_dist_does_not_see_an_affine_map_of_the_teachers_probabilities():
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    p = torch.softmax(teacher, dim=1)
    moved = (0.6 * p + 0.4 / 7).log()  # still sums to one, so softmax returns the same probabilities
    ours = [dist_loss(student, t, temperature=1.0, beta=1.0, gamma=2.0).item() for t in (teacher, moved)]
    assert ours[0] == pytest.approx(ours[1], rel=1e-6)
    assert kd_loss(student, moved, temperature=1.0).item() != pytest.approx(kd_loss(student, teacher, temperature=1.0))
    assert dist_loss(moved, teacher, temperature=1.0, beta=1.0, gamma=1.0).item() == pytest.approx(0.0, abs=1e-5)


def test_dist_is_largest_where_the_student_says_the_opposite():
    teacher = torch.tensor([[1.0, -1.0], [-1.0, 1.0]], dtype=torch.float64)
    ours = dist_loss(-teacher, teacher, temperature=2.0, beta=1.0, gamma=0.5).item()
    assert ours == pytest.approx(4 * 2 * 1.5, rel=1e-6)


def test_standardised_kd_agrees_with_numpy():
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    p, q = (
        softmax((z - z.mean(axis=1, keepdims=True)) / z.std(axis=1, keepdims=True) / 2.0, axis=1)
        for z in (teacher.numpy(), student.numpy())
    )
    ours = standardised_kd_loss(student, teacher, temperature=2.0).item()
    assert ours == pytest.approx(4 * np.mean(kl(p, q)), rel=1e-10)


def test_standardised_kd_does_not_see_the_scale_of_either_side():
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    scale = torch.tensor([0.1, 1.0, 2.0, 5.0, 30.0], dtype=torch.float64)[:, None]
    ours = [
        standardised_kd_loss(s, t, temperature=2.0).item()
        for s, t in ((student, teacher), (student * scale, teacher / scale))
    ]
    assert ours[0] == pytest.approx(ours[1], rel=1e-10)
    assert standardised_kd_loss(student * scale, student, temperature=2.0).item() == pytest.approx(0.0, abs=1e-12)


def test_atkd_agrees_with_numpy():
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    scale = 0.8 * student.numpy().std(axis=1)
    p = softmax(teacher.numpy() / (0.8 * teacher.numpy().std(axis=1, keepdims=True)), axis=1)
    q = softmax(student.numpy() / scale[:, None], axis=1)
    assert atkd_loss(student, teacher, temperature=0.8).item() == pytest.approx(np.mean(scale**2 * kl(p, q)), rel=1e-10)


def test_the_temperatures_of_atkd_make_student_and_teacher_equally_sharp():
    student, teacher = random_logits(seed=1), 4 * random_logits(seed=2)
    plain = centred_sharpness(teacher, temperature=12.0) - centred_sharpness(student, temperature=12.0)
    adapted = torch.stack(
        [
            centred_sharpness(z / (4 * z.std(dim=1, correction=0, keepdim=True))) - math.log(7)
            for z in (student, teacher)
        ]
    )
    torch.testing.assert_close(adapted[0], adapted[1], rtol=0.15, atol=0)  # third-order terms remain
    assert (adapted[0] - adapted[1]).abs().max() < 0.05 * plain.abs().max()


def test_atkds_gradient_is_that_of_constant_temperatures():
    student = random_logits(seed=1).requires_grad_()
    teacher = random_logits(seed=2)
    atkd_loss(student, teacher, temperature=0.8).backward()
    tau = 0.8 * student.detach().std(dim=1, correction=0, keepdim=True)
    soft = torch.softmax(teacher / (0.8 * teacher.std(dim=1, correction=0, keepdim=True)), dim=1)
    expected = tau * (torch.softmax(student.detach() / tau, dim=1) - soft) / 5
    torch.testing.assert_close(student.grad, expected, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("weighted", [False, True])
def test_ttm_agrees_with_numpy(weighted):
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    powers = softmax(teacher.numpy(), axis=1) ** 0.3
    total = powers.sum(axis=1)
    divergence = kl(powers / total[:, None], softmax(student.numpy(), axis=1))
    ours = ttm_loss(student, teacher, gamma=0.3, weighted=weighted).item()
    assert ours == pytest.approx(np.mean(total * divergence if weighted else divergence), rel=1e-10)


def test_ttm_with_exponent_one_is_kd_at_temperature_one_and_its_weights_are_one():
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    kd = kd_loss(student, teacher, temperature=1.0).item()
    assert ttm_loss(student, teacher, gamma=1.0).item() == pytest.approx(kd, rel=1e-12)
    assert ttm_loss(student, teacher, gamma=1.0, weighted=True).item() == pytest.approx(kd, rel=1e-12)


def test_ttm_vanishes_where_the_student_says_what_the_tempered_teacher_says():
    teacher = random_logits(seed=2)
    for weighted in (False, True):
        assert ttm_loss(teacher * 0.25, teacher, gamma=0.25, weighted=weighted).item() == pytest.approx(0.0, abs=1e-14)


def test_the_weights_of_wttm_go_from_one_to_what_a_uniform_teacher_gives():
    student = random_logits(1, 7, seed=1)
    certain, uniform = torch.tensor([[200.0] + [0.0] * 6], dtype=torch.float64), torch.zeros(1, 7, dtype=torch.float64)
    for teacher, weight in ((certain, 1.0), (uniform, 7**0.6)):
        ratio = ttm_loss(student, teacher, gamma=0.4, weighted=True) / ttm_loss(student, teacher, gamma=0.4)
        assert ratio.item() == pytest.approx(weight, rel=1e-9)


def released_dtkd(logits_student: torch.Tensor, logits_teacher: torch.Tensor, reference_temp: float) -> torch.Tensor:
    """The loss of mdistiller/distillers/DTKD.py, github.com/JinYu1998/DTKD at commit 9ebaa97."""
    logits_student_max, _ = logits_student.max(dim=1, keepdim=True)
    logits_teacher_max, _ = logits_teacher.max(dim=1, keepdim=True)
    student_temp = 2 * logits_student_max / (logits_teacher_max + logits_student_max) * reference_temp
    teacher_temp = 2 * logits_teacher_max / (logits_teacher_max + logits_student_max) * reference_temp
    ourskd = torch.nn.KLDivLoss(reduction="none")(
        torch.log_softmax(logits_student / student_temp, dim=1), torch.softmax(logits_teacher / teacher_temp, dim=1)
    )
    return (ourskd.sum(1, keepdim=True) * teacher_temp * student_temp).mean()


@pytest.mark.parametrize("temperature", [1.0, 4.0])
def test_dtkd_is_the_released_loss_with_the_gradient_through_its_temperatures(temperature):
    own, theirs = ((random_logits(9, 7, seed=4) + 4).requires_grad_() for _ in range(2))
    teacher = random_logits(9, 7, seed=5) + 4
    assert own.max(dim=1).values.min() > 0.1 < teacher.max(dim=1).values.min()
    loss, reference = dtkd_loss(own, teacher, temperature=temperature), released_dtkd(theirs, teacher, temperature)
    torch.testing.assert_close(loss, reference, rtol=1e-12, atol=0)
    loss.backward()
    reference.backward()
    torch.testing.assert_close(own.grad, theirs.grad, rtol=0, atol=1e-14)


def test_the_mean_temperature_of_dtkd_is_the_given_one_and_equal_models_have_that_of_kd():
    student = random_logits(seed=1)
    teacher = random_logits(seed=2)
    teacher = teacher * (student.max(dim=1, keepdim=True).values / teacher.max(dim=1, keepdim=True).values)
    expected = kd_loss(student, teacher, temperature=3.0).item()
    assert dtkd_loss(student, teacher, temperature=3.0).item() == pytest.approx(expected, rel=1e-12)
    assert dtkd_loss(student, 2.5 * student, temperature=3.0).item() == pytest.approx(0.0, abs=1e-12)


def test_dtkd_sees_a_constant_and_stays_finite_where_no_logit_is_positive():
    student, teacher = random_logits(seed=1), random_logits(seed=2)
    moved = dtkd_loss(student + 5, teacher, temperature=2.0)
    assert abs(moved.item() - dtkd_loss(student, teacher, temperature=2.0).item()) > 1e-3
    low = (student - 30).requires_grad_()
    loss = dtkd_loss(low, teacher, temperature=2.0)
    loss.backward()
    assert loss.isfinite()
    assert low.grad.isfinite().all()
