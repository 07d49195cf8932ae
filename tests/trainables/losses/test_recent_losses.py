"""NKD, RLD, PLD, MLKD and WKD-L against float64 references of their authors' code, hand values and identities."""

import math
from functools import partial

import numpy as np
import pytest
import torch
from scipy.optimize import linprog

from tests.trainables.losses.references import (
    entropy_of_others,
    linear_cka_by_centring,
    mlkd_levels,
    probabilities,
    published_pld,
    released_mlkd,
    released_nkd,
    released_rld,
    released_sdd_kd,
    released_wkd,
    slope,
)
from trainables.losses.labelled import nkd_loss, pld_loss, rld_loss
from trainables.losses.levels import mlkd_loss
from trainables.losses.logits import dkd_loss, kd_loss
from trainables.losses.transport import class_costs, linear_cka, wkd_loss
from trainables.spec.methods import METHOD_SPECS

B, C = 6, 5
LABELS = np.array([0, 4, 2, 3, 3, 1])
PUBLISHED_TEMPERATURES = (2.0, 3.0, 4.0, 5.0, 6.0)


def logits(seed: int, scale: float = 2.0, classes: int = C) -> np.ndarray:
    return scale * np.random.default_rng(seed).standard_normal((B, classes))


def symmetric_distances(classes: int = C, seed: int = 9) -> np.ndarray:
    values = np.random.default_rng(seed).uniform(0.2, 1.0, (classes, classes))
    values = (values + values.T) / 2
    np.fill_diagonal(values, 0)
    return values


DISTANCES = symmetric_distances()
TEACHER, STUDENT = logits(2), logits(1)
# A value of every setting that is not another's neutral element.
NKD = {"temperature": 3.0, "gamma": 1.5}
RLD = {"temperature": 3.0, "alpha": 0.7, "beta": 2.0}
PLD = {"temperature": 1.5}
WKD = {"temperature": 2.0, "weight": 20.0, "sharpening": 1.5}


def nkd_reference(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> float:
    entropy = entropy_of_others(teacher, labels, temperature=NKD["temperature"])
    return released_nkd(student, teacher, labels, **NKD) - NKD["gamma"] * NKD["temperature"] ** 2 * entropy


def mlkd_reference(student: np.ndarray, teacher: np.ndarray, labels: np.ndarray) -> float:
    instance, batch, of_class = mlkd_levels(student, teacher, temperatures=PUBLISHED_TEMPERATURES)
    return instance + 0.7 * batch + 3.0 * of_class


REFERENCES = {
    "nkd": nkd_reference,
    "rld": partial(released_rld, **RLD),
    "pld": partial(published_pld, **PLD),
    "mlkd": mlkd_reference,
    "wkd": partial(released_wkd, distances=DISTANCES, **WKD),
}
OURS = {
    "nkd": partial(nkd_loss, **NKD),
    "rld": partial(rld_loss, **RLD),
    "pld": partial(pld_loss, **PLD),
    "mlkd": lambda s, t, _: mlkd_loss(s, t, temperature=4.0, batch_weight=0.7, class_weight=3.0),
    "wkd": lambda s, t, y: wkd_loss(s, t, y, torch.tensor(DISTANCES), **WKD),
}
EVERY_LOSS = pytest.mark.parametrize("name", OURS)


def ours(name: str, student: np.ndarray, teacher: np.ndarray, dtype: torch.dtype = torch.float64):
    leaf = torch.tensor(student, dtype=dtype, requires_grad=True)
    value = OURS[name](leaf, torch.tensor(teacher, dtype=dtype), torch.tensor(LABELS))
    value.backward()
    return value.item(), leaf.grad.numpy()


@EVERY_LOSS
def test_value_and_gradient_are_those_of_the_authors_in_float64(name):
    value, gradient = ours(name, STUDENT, TEACHER)
    assert value == pytest.approx(REFERENCES[name](STUDENT, TEACHER, LABELS), rel=1e-11)
    expected = slope(lambda each: REFERENCES[name](each, TEACHER, LABELS), STUDENT)
    np.testing.assert_allclose(gradient, expected, atol=1e-7)
    assert np.abs(expected).max() > 0.01


@EVERY_LOSS
@pytest.mark.parametrize("scale", [1.0, 30.0, 300.0])
def test_float32_agrees_with_float64_at_large_logits(name, scale):
    student, teacher = logits(1, scale), logits(2, scale)
    single, double = (ours(name, student, teacher, dtype) for dtype in (torch.float32, torch.float64))
    assert single[0] == pytest.approx(double[0], rel=1e-5)
    np.testing.assert_allclose(single[1], double[1], rtol=1e-3, atol=1e-4 * np.abs(double[1]).max())


@EVERY_LOSS
def test_a_batch_of_one_is_a_batch(name):
    one = torch.tensor(STUDENT[:1]), torch.tensor(TEACHER[:1]), torch.tensor(LABELS[:1])
    assert OURS[name](*one).item() == pytest.approx(REFERENCES[name](STUDENT[:1], TEACHER[:1], LABELS[:1]), rel=1e-11)


THREE = torch.tensor([[math.log(2), math.log(3), 0.0]], dtype=torch.float64)  # 1/3, 1/2 and 1/6
FLAT = torch.zeros(1, 3, dtype=torch.float64)
FIRST = torch.tensor([0])


def test_nkd_has_the_value_computed_by_hand():
    # The label: 1/3 · ln 3. The others: (3/4, 1/4) against (1/2, 1/2).
    others = 0.75 * math.log(1.5) + 0.25 * math.log(0.5)
    value = nkd_loss(FLAT, THREE, FIRST, temperature=1.0, gamma=2.0).item()
    assert value == pytest.approx(math.log(3) / 3 + 2 * others)


def test_rld_has_the_value_computed_by_hand():
    # The teacher is wrong and sure by 1/2; the student gives the label 1/4. Of four classes two are below the label.
    teacher = torch.tensor([[math.log(2), math.log(4), 0.0, math.log(1)]], dtype=torch.float64)
    confidence = 0.5 * math.log(0.5 / 0.25) + 0.5 * math.log(0.5 / 0.75)
    flat = torch.zeros(1, 4, dtype=torch.float64)
    settings = {"temperature": 1.0, "alpha": 3.0, "beta": 5.0}
    assert rld_loss(flat, teacher, FIRST, **settings).item() == pytest.approx(3 * confidence)
    uneven = torch.tensor([[0.0, 0.0, math.log(3), 0.0]], dtype=torch.float64)  # 1/6 for the label
    confidence = 0.5 * math.log(0.5 / (1 / 6)) + 0.5 * math.log(0.5 / (5 / 6))
    correlation = 0.5 * math.log(0.5 / 0.75) + 0.5 * math.log(0.5 / 0.25)
    assert rld_loss(uneven, teacher, FIRST, **settings).item() == pytest.approx(3 * confidence + 5 * correlation)


def test_pld_has_the_value_computed_by_hand():
    # Of three, two and one classes left, a flat student picks the right one by 1/3, 1/2 and 1.
    value = pld_loss(FLAT, THREE, FIRST, temperature=1.0).item()
    assert value == pytest.approx(math.log(3) / 3 + math.log(2) / 2)


def test_the_transport_of_two_equal_halves_has_the_value_computed_by_hand():
    # The plan of two halves is ((1, k), (k, 1)) / 2(1 + k) with k = exp(-cost / 0.05), whatever the number of steps.
    distances = torch.tensor([[0, 0.1, 1], [0.1, 0, 1], [1, 1, 0]], dtype=torch.float64)
    cost = 1 - math.exp(-0.1)
    k = math.exp(-cost / 0.05)
    value = wkd_loss(FLAT, FLAT, torch.tensor([2]), distances, temperature=3.0, weight=7.0, sharpening=1.0).item()
    assert value == pytest.approx(math.log(3) / 3 + 7 * cost * k / (1 + k), abs=1e-6)


def test_flat_logits_have_the_values_computed_by_hand():
    flat, labels = torch.zeros(B, C, dtype=torch.float64), torch.tensor(LABELS)
    assert OURS["nkd"](flat, flat, labels).item() == pytest.approx(math.log(C) / C)
    assert OURS["pld"](flat, flat, labels).item() == pytest.approx(math.log(math.factorial(C)) / C)
    assert OURS["rld"](flat, flat, labels).item() == pytest.approx(0, abs=1e-15)
    assert OURS["mlkd"](flat, flat, labels).item() == pytest.approx(0, abs=1e-15)


def test_rld_is_dkd_where_the_teacher_is_right():
    teacher = torch.tensor(TEACHER)
    labels = teacher.argmax(dim=1)
    found = rld_loss(torch.tensor(STUDENT), teacher, labels, **RLD).item()
    assert found == pytest.approx(dkd_loss(torch.tensor(STUDENT), teacher, labels, **RLD).item(), rel=1e-12)


def test_rld_teaches_nothing_of_classes_that_a_wrong_teacher_prefers_to_the_label():
    student, teacher, labels = torch.tensor(STUDENT), torch.tensor(TEACHER), torch.tensor(LABELS)
    preferred = teacher > teacher.gather(1, labels[:, None])
    assert preferred.any()
    only = {"temperature": 2.0, "alpha": 0.0, "beta": 1.0}
    moved = student + 3 * preferred
    assert rld_loss(moved, teacher, labels, **only).item() == rld_loss(student, teacher, labels, **only).item()
    tied = teacher.clone()
    tied[0] = 1.0  # no class is below the label
    leaf = student.clone().requires_grad_()
    rld_loss(leaf, tied, labels, **only).backward()
    assert leaf.grad[0].abs().max() == 0
    assert leaf.grad[1:].abs().max() > 0


def test_the_first_rank_of_pld_is_the_weighted_cross_entropy_and_equal_logits_are_ranked_by_index():
    teacher = torch.tensor([[0.0, 50.0, 0.0, 0.0]], dtype=torch.float64)
    student = torch.tensor([[0.3, -1.0, 2.0, 0.7]], dtype=torch.float64)
    label = torch.tensor([1])
    cross_entropy = torch.nn.functional.cross_entropy(student, label).item()
    assert pld_loss(student, teacher, label, temperature=1.0).item() == pytest.approx(cross_entropy)
    flat = torch.zeros(1, 4, dtype=torch.float64)
    expected = published_pld(student.numpy(), np.array([[0.0, 9.0, -1e-9, -2e-9]]), [1], temperature=1e9)
    assert pld_loss(student, flat, label, temperature=1.0).item() == pytest.approx(expected, rel=1e-8)


def test_only_the_order_of_the_teachers_logits_and_its_weights_matter_to_pld():
    student, labels = torch.tensor(STUDENT), torch.tensor(LABELS)
    teacher = torch.tensor(TEACHER)
    found = [pld_loss(student, each, labels, temperature=1e9).item() for each in (teacher, teacher.sinh())]
    assert found[0] == pytest.approx(found[1], rel=1e-6)


def test_the_levels_of_mlkd_are_those_of_the_released_code_up_to_its_masks():
    student, teacher = torch.tensor(STUDENT), torch.tensor(TEACHER)
    plain = np.array([probabilities(row) for row in TEACHER])
    share, of_classes = (
        float((each <= np.percentile(each, 50)).mean()) for each in (plain.max(axis=1), plain.sum(axis=0))
    )
    weights = {"batch_weight": 1.0, "class_weight": of_classes / share}
    found = share * mlkd_loss(student, teacher, temperature=4.0, **weights).item()
    assert found == pytest.approx(released_mlkd(STUDENT, TEACHER), rel=1e-11)
    assert (share, of_classes) == (0.5, 0.6)


def test_without_relations_mlkd_is_kd_at_five_temperatures():
    student, teacher = torch.tensor(STUDENT), torch.tensor(TEACHER)
    expected = sum(kd_loss(student, teacher, temperature=each).item() for each in PUBLISHED_TEMPERATURES)
    found = mlkd_loss(student, teacher, temperature=4.0, batch_weight=0.0, class_weight=0.0).item()
    assert found == pytest.approx(expected, rel=1e-12)


def test_after_many_iterations_the_transport_is_almost_the_exact_one():
    """The exact cost is that of a linear program over plans with the given sums of rows and columns."""
    student, teacher = torch.tensor(STUDENT), torch.tensor(TEACHER)
    cost = class_costs(torch.tensor(DISTANCES), sharpening=1.0).numpy()
    sums = np.vstack([np.kron(np.eye(C - 1), np.ones(C - 1)), np.kron(np.ones(C - 1), np.eye(C - 1))])
    exact = []
    for s, t, label in zip(STUDENT, TEACHER, LABELS, strict=True):
        ends = np.concatenate([probabilities(np.delete(each, label) / 2) for each in (s, t)])
        own = np.delete(np.delete(cost, label, 0), label, 1)
        exact.append(linprog(own.ravel(), A_eq=sums, b_eq=ends).fun)
    settings = {"temperature": 2.0, "sharpening": 1.0, "iterations": 100}
    labels, distances = torch.tensor(LABELS), torch.tensor(DISTANCES)
    with_weight, without = (
        wkd_loss(student, teacher, labels, distances, weight=weight, **settings).item() for weight in (1.0, 0.0)
    )
    assert with_weight - without == pytest.approx(np.mean(exact), rel=0.01)
    assert np.mean(exact) > 0.05


def test_it_costs_less_to_confuse_related_classes():
    """Only the transport sees which wrong class the student prefers; a divergence does not."""
    teacher = torch.tensor([[0.0, 3.0, 0.0, 0.0]], dtype=torch.float64)
    near, far = (torch.tensor([[0.0, *row]], dtype=torch.float64) for row in ((0, 3, 0), (0, 0, 3)))
    distances = torch.ones(4, 4, dtype=torch.float64).fill_diagonal_(0)
    distances[1, 2] = distances[2, 1] = 0.3
    found = [wkd_loss(each, teacher, FIRST, distances, **WKD).item() for each in (near, far)]
    assert found[1] - found[0] > 1
    blind = [nkd_loss(each, teacher, FIRST, temperature=1.0, gamma=1.0).item() for each in (near, far)]
    assert blind[0] == pytest.approx(blind[1], rel=1e-12)


def test_cka_is_that_of_centred_kernels_and_sees_neither_scale_nor_rotation():
    random = np.random.default_rng(3)
    samples = random.standard_normal((4, 12, 3)) @ np.diag([3.0, 1.0, 0.2]) + 5
    samples[1] = samples[0] * 0.3 + 0.1 * random.standard_normal((12, 3))
    found = linear_cka(torch.tensor(samples)).numpy()
    expected = [[linear_cka_by_centring(a, b) for b in samples] for a in samples]
    np.testing.assert_allclose(found, expected, rtol=1e-9)
    np.testing.assert_allclose(found.diagonal(), 1, rtol=1e-12)
    rotation, _ = np.linalg.qr(random.standard_normal((3, 3)))
    moved = np.stack([-7 * samples[0] @ rotation + 2, *samples[1:]])
    np.testing.assert_allclose(linear_cka(torch.tensor(moved)).numpy(), expected, rtol=1e-9)
    assert linear_cka(torch.ones(2, 4, 3)).abs().max() == 0


def test_scale_decoupling_of_the_whole_image_alone_is_kd():
    """The part of SDD that stored outputs suffice for is no method of its own; see `trainables.spec.methods.logits`."""
    student, teacher = (np.random.default_rng(seed).standard_normal((B, C, 5)) for seed in (4, 5))
    whole = released_sdd_kd(student[:, :, :1], teacher[:, :, :1], LABELS, temperature=4.0)
    ours = kd_loss(torch.tensor(student[:, :, 0]), torch.tensor(teacher[:, :, 0]), temperature=4.0).item()
    assert whole == pytest.approx(ours, rel=1e-11)
    assert released_sdd_kd(student, teacher, LABELS, temperature=4.0) != pytest.approx(ours, rel=1e-2)


def test_published_settings_are_those_of_the_authors():
    """For RLD the README's command and the code's defaults, for PLD section 5.1 of the paper, otherwise the configs."""
    published = {
        "nkd": {"temperature": 3.0, "nkd_gamma": 3.5, "ce_weight": 1.0, "kd_weight": 1.0},
        "pld": {"temperature": 4.0, "ce_weight": 0.0, "kd_weight": 1.0},
        "rld": {"temperature": 4.0, "rld_alpha": 1.0, "rld_beta": 8.0, "ce_weight": 1.0, "kd_weight": 1.0},
        "mlkd": {"temperature": 4.0, "ce_weight": 0.1, "kd_weight": 0.9},
        "wkd_l": {"temperature": 8.0, "wkd_weight": 600.0, "wkd_sharpening": 1.0, "wkd_decay_start": 150 / 240},
    }
    for name, values in published.items():
        assert values.items() <= METHOD_SPECS[name].published.items(), name
    assert METHOD_SPECS["rld"].published["warmup_epochs"] == 20
