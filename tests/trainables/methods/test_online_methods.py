"""Losses of methods that train more than the student, against NumPy, SciPy and hand values in float64."""

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax, softmax

from tests.trainables.conftest import small_config
from trainables.costs.epoch import run_epoch
from trainables.losses.parts import StepOutputs
from trainables.methods.dual_student import confidence, confident_kd_loss
from trainables.methods.kdcl import linear_ensemble, linear_weight, mean_ensemble, min_logit_ensemble
from trainables.methods.registry import METHODS
from trainables.run.run import DistillationRun
from trainables.spec.trial import TrialConfig
from trainables.teacher_outputs.frozen import FrozenTeacher, Renormalisation

pytestmark = pytest.mark.study

LABELS = torch.tensor([0, 3, 1, 1, 4])
WEIGHTS = {"ce_weight": 0.7, "kd_weight": 1.3}


def logits(seed: int, rows: int = 5, classes: int = 5, scale: float = 2.0) -> torch.Tensor:
    return scale * torch.randn(rows, classes, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def ce(z: torch.Tensor, labels: torch.Tensor = LABELS) -> float:
    return float(-log_softmax(z.detach().numpy(), axis=1)[np.arange(len(labels)), labels.numpy()].mean())


def kl_rows(target: torch.Tensor, z: torch.Tensor, temperature: float) -> np.ndarray:
    t, s = target.detach().numpy() / temperature, z.detach().numpy() / temperature
    return (softmax(t, axis=1) * (log_softmax(t, axis=1) - log_softmax(s, axis=1))).sum(axis=1) * temperature**2


def kl(target: torch.Tensor, z: torch.Tensor, temperature: float) -> float:
    return float(kl_rows(target, z, temperature).mean())


def losses_of(method: str, **values: object):
    """Return student logits, peer logits and the losses of a method."""
    objective = METHODS[method].objective(TrialConfig(method=method, **(WEIGHTS | values)).model_dump())
    student, peer = logits(0).requires_grad_(), logits(1).requires_grad_()
    outputs = StepOutputs(student, student, teacher_logits=logits(2), peer_logits=peer)
    return student, peer, objective(outputs, LABELS)


def assert_parts(parts, *, ce_student: float, kd_student: float, peer: float) -> None:
    """Assert the values of the parts, and that the total is their weighted sum."""
    assert parts.ce.item() == pytest.approx(ce_student)
    assert parts.kd.item() == pytest.approx(kd_student)
    assert parts.peer.item() == pytest.approx(peer)
    assert parts.total.item() == pytest.approx(0.7 * ce_student + 1.3 * kd_student + peer)


@pytest.mark.parametrize("temperature", [1.0, 3.0])
def test_mutual_learning_is_what_numpy_says(temperature):
    student, peer, parts = losses_of("dml", temperature=temperature)
    own, other = kl(peer, student, temperature), kl(student, peer, temperature)
    assert_parts(parts, ce_student=ce(student), kd_student=own, peer=0.7 * ce(peer) + 1.3 * other)


@pytest.mark.parametrize(
    ("method", "values"),
    [("dml", {}), ("kdcl", {"kdcl_ensemble": "mean"}), ("kdcl", {"kdcl_ensemble": "linear"}),
     ("kdcl", {"kdcl_ensemble": "min_logit"}), ("dual_student", {})],
)  # fmt: skip
def test_nobodys_part_moves_the_other_network(method, values):
    student, peer, parts = losses_of(method, **values)
    own = torch.autograd.grad(parts.total - parts.peer, (student, peer), retain_graph=True, allow_unused=True)
    back = torch.autograd.grad(parts.peer, (student, peer), allow_unused=True)
    for mine, others in (own, reversed(back)):
        assert mine.abs().max() > 0.01
        assert others is None or not others.any()


@pytest.mark.parametrize("kind", ["mean", "linear", "min_logit"])
def test_collaborative_learning_is_what_numpy_says(kind):
    student, peer, parts = losses_of("kdcl", temperature=2.0, kdcl_ensemble=kind)
    first, second = student.detach(), peer.detach()
    rows = torch.arange(len(LABELS))
    ensembles = {
        "mean": (first + second) / 2,
        "linear": best_combination(first, second, LABELS)[0],
        "min_logit": torch.stack([z - z[rows, LABELS][:, None] for z in (first, second)]).amin(0),
    }
    own, other = kl(ensembles[kind], student, 2.0), kl(ensembles[kind], peer, 2.0)
    assert parts.kd.item() == pytest.approx(own, rel=1e-6)
    assert parts.peer.item() == pytest.approx(0.7 * ce(peer) + 1.3 * other, rel=1e-6)


def best_combination(first: torch.Tensor, second: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, float]:
    """Return the convex combination of logits with the least cross-entropy, and the weight."""

    def error(weight: float) -> float:
        return ce(weight * first + (1 - weight) * second, labels)

    inside = minimize_scalar(error, bounds=(0, 1), method="bounded", options={"xatol": 1e-11}).x
    weight = min(inside, 0.0, 1.0, key=error)
    return weight * first + (1 - weight) * second, weight


def test_the_mean_ensemble_of_one_network_is_itself_and_the_order_is_no_matter():
    assert torch.equal(mean_ensemble(logits(0), logits(0)), logits(0))
    assert torch.equal(mean_ensemble(logits(0), logits(1)), mean_ensemble(logits(1), logits(0)))


@pytest.mark.parametrize("scale", [0.5, 3.0, 30.0])
@pytest.mark.parametrize("seed", range(8))
def test_the_linear_ensemble_has_the_least_cross_entropy_that_scipy_finds(seed, scale):
    rows, classes = (1, 64)[seed % 2], (2, 10, 100)[seed % 3]
    labels = torch.randint(classes, (rows,), generator=torch.Generator().manual_seed(seed))
    first, second = (logits(2 * seed + k, rows, classes, scale) for k in (0, 1))
    best, weight = best_combination(first, second, labels)
    assert 0 <= linear_weight(first, second, labels).item() <= 1
    assert ce(linear_ensemble(first, second, labels), labels) == pytest.approx(ce(best, labels), abs=1e-6)
    if rows > 1 and scale < 30:
        assert linear_weight(first, second, labels).item() == pytest.approx(weight, abs=1e-6)


@pytest.mark.parametrize("seed", range(6))
def test_the_linear_ensembles_weight_meets_the_conditions_of_optimality(seed):
    """The slope is 0 inside, and points outwards at an end (Karush, Kuhn and Tucker)."""
    first, second = logits(seed, 40, 10), logits(seed + 50, 40, 10) * (seed / 3)
    labels = torch.randint(10, (40,), generator=torch.Generator().manual_seed(seed))
    if seed == 5:
        first = torch.nn.functional.one_hot(labels, 10) * 5.0 + logits(seed, 40, 10, 0.1)
    weight = linear_weight(first, second, labels).requires_grad_()
    loss = torch.nn.functional.cross_entropy(weight * first + (1 - weight) * second, labels)
    (slope,) = torch.autograd.grad(loss, weight)
    if 0 < weight < 1:
        assert slope.item() == pytest.approx(0.0, abs=1e-9)
    else:
        assert (slope >= 0) if weight == 0 else (slope <= 0)
    assert (weight == 1) == (seed == 5)


def test_the_linear_ensemble_of_one_network_is_itself():
    assert torch.equal(linear_ensemble(logits(0), logits(0), LABELS), logits(0))


def test_the_linear_ensemble_is_the_same_whoever_is_named_first():
    there, back = linear_ensemble(logits(0), logits(1), LABELS), linear_ensemble(logits(1), logits(0), LABELS)
    torch.testing.assert_close(there, back, rtol=0, atol=1e-8)


def test_the_least_logits_by_hand():
    first, second = torch.tensor([[3.0, 1.0, 2.0]]), torch.tensor([[0.0, 5.0, -4.0]])
    # Relative to the logit of the correct class: (2, 0, 1) and (-5, 0, -9).
    assert min_logit_ensemble(first, second, torch.tensor([1])).tolist() == [[-5.0, 0.0, -9.0]]


def test_the_least_logits_are_surer_of_the_right_class_than_either_network():
    ensemble = min_logit_ensemble(logits(0), logits(1), LABELS)
    right = [torch.softmax(z, dim=1)[torch.arange(5), LABELS] for z in (ensemble, logits(0), logits(1))]
    assert (right[0] >= right[1] - 1e-12).all()
    assert (right[0] >= right[2] - 1e-12).all()


def test_a_teacher_has_no_confidence_in_equal_logits_and_full_confidence_in_one_class():
    z = torch.tensor([[2.0, 2.0, 2.0, 2.0], [500.0, 0.0, 0.0, 0.0], [math.log(3), math.log(3), -1000.0, -1000.0]])
    assert confidence(z.double()).tolist() == pytest.approx([0.0, 1.0, 0.5])


def test_the_teachers_divergence_is_weighted_by_its_confidence():
    student, teacher = logits(0), logits(2)
    p = softmax(teacher.numpy(), axis=1)
    sure = 1 + (p * np.log(p)).sum(axis=1) / math.log(5)
    expected = float((sure * kl_rows(teacher, student, 3.0)).mean())
    assert confident_kd_loss(student, teacher, temperature=3.0).item() == pytest.approx(expected)
    assert confident_kd_loss(teacher, teacher, temperature=3.0).item() == pytest.approx(0.0, abs=1e-12)
    assert confident_kd_loss(student, torch.zeros(5, 5).double(), temperature=3.0).item() == pytest.approx(0.0)


def test_two_students_are_taught_by_the_teacher_and_by_each_other():
    student, peer, parts = losses_of("dual_student", temperature=2.0, dual_student_peer_weight=0.4)
    teacher = logits(2)
    own, other = (confident_kd_loss(z.detach(), teacher, temperature=2.0).item() for z in (student, peer))
    own, other = own + 0.4 * kl(peer, student, 2.0), other + 0.4 * kl(student, peer, 2.0)
    assert_parts(parts, ce_student=ce(student), kd_student=own, peer=0.7 * ce(peer) + 1.3 * other)


@pytest.mark.parametrize("detached", [False, True])
def test_a_whole_teacher_learns_by_what_an_adapter_learns_by(detached):
    values = WEIGHTS | {"temperature": 3.0, "adapter_ce_weight": 0.6, "detach_adapter_target": detached}
    gradients = []
    for method in ("full_teacher", "pesf_kd"):
        student, target_logits = logits(0).requires_grad_(), logits(1).requires_grad_()
        objective = METHODS[method].objective(TrialConfig(method=method, **values).model_dump())
        parts = objective(StepOutputs(student, student, adapted_logits=target_logits), LABELS)
        parts.total.backward()
        gradients.append((student.grad, target_logits.grad))
        expected = 0.7 * ce(student) + 1.3 * kl(target_logits, student, 3.0) + 0.6 * ce(target_logits)
        assert parts.total.item() == pytest.approx(expected)
    for ours, theirs in zip(*gradients, strict=True):
        assert torch.equal(ours, theirs)


def test_a_whole_teacher_that_does_not_learn_makes_the_student_of_distillation_with_its_batch_statistics(
    digits, teacher
):
    still = {"adapter_learning_rate": 1e-30, "adapter_weight_decay": 0.0, "detach_adapter_target": True}
    run = DistillationRun(small_config(method="full_teacher", **still), digits, teacher)
    before = {name: parameter.clone() for name, parameter in run.companion.model.named_parameters()}
    measures = run_epoch(run)
    assert all(torch.equal(p, before[name]) for name, p in run.companion.model.named_parameters())
    assert measures["train/loss_kd"] > 0


def test_a_whole_teacher_sees_its_images_normalised_as_it_was_trained(digits, teacher):
    other = Renormalisation.between(digits.mean, digits.std, [0.1], [0.7])
    given = FrozenTeacher(teacher.model, renormalise=other)
    run = DistillationRun(small_config(method="full_teacher"), digits, given)
    images = next(run.evaluation_batches(digits.validation))
    assert torch.equal(run.companion.evaluated()(images), given(images).logits)
    assert not torch.equal(run.companion.evaluated()(images), teacher(images).logits)


def test_measures_of_a_whole_teacher_are_the_adapted_ones_beside_those_of_the_frozen_one(digits, teacher):
    run = DistillationRun(small_config(method="full_teacher", adapter_learning_rate=0.05), digits, teacher)
    first = run.evaluate()
    assert first["val/accuracy_adapted"] == first["val/accuracy_teacher"]
    assert first["val/sharpness_gap"] == pytest.approx(first["val/sharpness_gap_frozen"])
    later = run_epoch(run)
    assert later["val/sharpness_teacher"] == first["val/sharpness_teacher"]
    assert later["val/sharpness_adapted"] != first["val/sharpness_adapted"]
    gap = later["val/sharpness_adapted"] - later["val/sharpness_student"]
    assert later["val/sharpness_gap"] == pytest.approx(gap)
    assert later["cost/adapter_parameters"] == 0
    assert later["cost/teacher_forwards"] == 1077 + 2 * 360 + 360  # training, two evaluations, the frozen teacher


@pytest.mark.parametrize("method", ["dml", "kdcl"])
def test_a_peer_stands_for_the_teacher_where_none_is_trained(method, digits, teacher):
    with_one, alone = (DistillationRun(small_config(method=method), digits, t) for t in (teacher, None))
    measures = run_epoch(with_one)
    assert measures["val/accuracy_teacher"] == measures["val/accuracy_peer"]
    gap = measures["val/sharpness_teacher"] - measures["val/sharpness_student"]
    assert measures["val/sharpness_gap"] == pytest.approx(gap)
    assert "val/sharpness_gap_frozen" not in measures
    assert measures["cost/teacher_forwards"] == 0
    theirs = run_epoch(alone)
    assert {n: v for n, v in measures.items() if not n.startswith("cost/")} == {
        n: v for n, v in theirs.items() if not n.startswith("cost/")
    }


def test_two_students_differ_in_their_first_weights_and_both_are_measured(digits, teacher):
    run = DistillationRun(small_config(method="dual_student"), digits, teacher)
    measures = run_epoch(run)
    assert run.companion.model is not run.student
    assert type(run.companion.model) is type(run.student)
    assert 0 < measures["val/accuracy_peer"] <= 1
    assert measures["val/sharpness_gap"] == measures["val/sharpness_gap_frozen"]
