"""Losses of the penultimate feature, against NumPy in float64, and their invariances."""

import math

import numpy as np
import pytest
import torch

from trainables.losses.parts import StepOutputs
from trainables.methods.crd import ContrastiveMemory
from trainables.methods.method import PartsSetting
from trainables.methods.pkt import pkt_loss
from trainables.methods.registry import METHODS
from trainables.methods.rkd import rkd_angle_loss, rkd_distance_loss
from trainables.spec.trial import TrialConfig

RELATIONS = {"pkt": pkt_loss, "rkd_distance": rkd_distance_loss, "rkd_angle": rkd_angle_loss}
EVERY_RELATION = pytest.mark.parametrize("loss", RELATIONS.values(), ids=RELATIONS)


def features(rows: int = 6, width: int = 4, *, seed: int = 0) -> torch.Tensor:
    return torch.randn(rows, width, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def rotation(width: int) -> torch.Tensor:
    return torch.linalg.qr(features(width, width, seed=9)).Q


def huber(first: np.ndarray, second: np.ndarray) -> float:
    d = np.abs(first - second)
    return float(np.mean(np.where(d < 1, d**2 / 2, d - 0.5)))


@EVERY_RELATION
def test_a_relation_and_its_gradient_vanish_for_a_turned_and_scaled_student(loss):
    teacher = features()
    student = (3 * teacher @ rotation(4)).requires_grad_()
    value = loss(student, teacher)
    value.backward()
    assert value.item() == pytest.approx(0.0, abs=1e-12)
    assert student.grad.abs().max() < (1e-6 if loss is pkt_loss else 1e-9)  # pkt adds a small constant to probabilities


@EVERY_RELATION
def test_a_relation_takes_features_of_any_two_widths_and_sees_where_they_differ(loss):
    assert loss(features(width=3, seed=1), features(width=5, seed=2)).item() > 1e-3


@EVERY_RELATION
def test_a_relations_gradient_is_what_differences_say(loss):
    student = features(4, 3, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s, features(4, 5, seed=2)), (student,))


@EVERY_RELATION
@pytest.mark.parametrize("rows", [1, 2, 5])
def test_a_relation_and_its_gradient_are_finite_where_samples_coincide(loss, rows):
    for student in (torch.zeros(rows, 4), torch.ones(rows, 4), features(rows).float()):
        student.requires_grad_()
        for teacher in (torch.zeros(rows, 4), features(rows, seed=2).float()):
            value = loss(student, teacher)
            (gradient,) = torch.autograd.grad(value, student)
            assert value.isfinite()
            assert gradient.isfinite().all()


@EVERY_RELATION
def test_a_feature_that_is_not_a_number_shows_in_the_relation(loss):
    teacher = features(seed=2)
    teacher[3, 1] = float("nan")
    assert loss(features(seed=1), teacher).isnan()


@pytest.mark.parametrize("loss", [rkd_distance_loss, rkd_angle_loss])
def test_rkd_does_not_see_where_the_student_is(loss):
    student, teacher = features(seed=1), features(seed=2)
    assert loss(student + 5, teacher).item() == pytest.approx(loss(student, teacher).item(), rel=1e-9)


def test_pkt_agrees_with_numpy():
    def neighbourhood(x: np.ndarray) -> np.ndarray:
        unit = x / np.linalg.norm(x, axis=1, keepdims=True)
        kernel = (unit @ unit.T + 1) / 2
        return kernel / kernel.sum(axis=1, keepdims=True)

    student, teacher = features(seed=1), features(width=5, seed=2)
    q, p = neighbourhood(student.numpy()), neighbourhood(teacher.numpy())
    assert pkt_loss(student, teacher).item() == pytest.approx(np.mean(p * np.log(p / q)), rel=1e-4)


def test_rkd_distances_agree_with_numpy():
    def relative(x: np.ndarray) -> np.ndarray:
        d = np.linalg.norm(x[:, None] - x[None], axis=2)
        return d / d[d > 0].mean()

    student, teacher = features(seed=1), features(width=5, seed=2)
    expected = huber(relative(student.numpy()), relative(teacher.numpy()))
    assert rkd_distance_loss(student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_rkd_angles_agree_with_numpy():
    def cosines(x: np.ndarray) -> np.ndarray:
        n = len(x)
        table = np.zeros((n, n, n))
        for j in range(n):
            for i in range(n):
                for k in range(n):
                    if j not in (i, k):
                        a, b = x[i] - x[j], x[k] - x[j]
                        table[j, i, k] = a @ b / (np.linalg.norm(a) * np.linalg.norm(b))
        return table

    student, teacher = features(5, seed=1), features(5, 3, seed=2)
    expected = huber(cosines(student.numpy()), cosines(teacher.numpy()))
    assert rkd_angle_loss(student, teacher).item() == pytest.approx(expected, rel=1e-9)


def test_rkd_weighs_its_two_relations():
    values = TrialConfig(ce_weight=0.3, kd_weight=0.7, rkd_distance_weight=2.0, rkd_angle_weight=5.0).model_dump()
    student, teacher = features(seed=1), features(seed=2)
    outputs = StepOutputs(student, student, teacher_feature=teacher)
    parts = METHODS["rkd"].objective(values)(outputs, torch.tensor([0, 1, 2, 3, 0, 1]))
    expected = 2 * rkd_distance_loss(student, teacher) + 5 * rkd_angle_loss(student, teacher)
    assert parts.kd.item() == pytest.approx(expected.item(), rel=1e-12)
    assert parts.total.item() == pytest.approx((0.3 * parts.ce + 0.7 * parts.kd).item(), rel=1e-12)


LABELS = torch.tensor([0, 1, 2, 1, 0, 2, 2, 1, 0, 2])  # labels of a train split of ten


def memory(*, negatives: int = 6, momentum: float = 0.5) -> ContrastiveMemory:
    """Return CRD's trainable parts in float64 for the ten labels."""
    torch.manual_seed(0)
    values = {"crd_dim": 3, "crd_negatives": negatives, "crd_temperature": 0.3, "crd_momentum": momentum}
    parts = METHODS["crd"].build_parts(values, PartsSetting(4, 5, LABELS))
    assert isinstance(parts, ContrastiveMemory)
    return parts.double()


def batch(rows: list[int], seed: int = 1) -> tuple[StepOutputs, torch.Tensor]:
    student, teacher = features(len(rows), 4, seed=seed), features(len(rows), 5, seed=seed + 100)
    outputs = StepOutputs(student.requires_grad_(), student, teacher_feature=teacher, indices=torch.tensor(rows))
    return outputs._replace(generator=torch.Generator().manual_seed(7)), LABELS[rows]


def test_the_negatives_of_crd_are_all_samples_of_other_classes_evenly_and_no_other():
    parts = memory(negatives=30_000)
    drawn = parts.draw_negatives(LABELS, torch.Generator().manual_seed(0))
    for row, label in enumerate(LABELS.tolist()):
        counts = torch.bincount(drawn[row], minlength=10)
        assert (counts[label == LABELS] == 0).all()
        others = counts[label != LABELS].double() / 30_000
        torch.testing.assert_close(others, torch.full_like(others, 1 / len(others)), rtol=0.05, atol=0)


def test_crd_agrees_with_numpy_over_two_batches():
    parts = memory()
    unit = {who: getattr(parts, f"{who}_embedding") for who in ("student", "teacher")}
    remembered = parts.memory.clone().numpy()
    log_z = [None, None]
    for rows in ([3, 0, 9, 5], [2, 3, 1]):
        outputs, labels = batch(rows, seed=len(rows))
        drawn = parts.draw_negatives(labels, torch.Generator().manual_seed(7)).numpy()
        u = [
            unit[who](feature).detach().numpy()
            for who, feature in (("student", outputs.student_feature), ("teacher", outputs.teacher_feature))
        ]
        u = [each / np.linalg.norm(each, axis=1, keepdims=True) for each in u]
        expected = 0.0
        for side, other in ((0, 1), (1, 0)):
            shown = np.concatenate([np.array(rows)[:, None], drawn], axis=1)
            x = np.exp(np.einsum("bd,bkd->bk", u[side], remembered[other][shown]) / 0.3)
            if log_z[other] is None:
                log_z[other] = np.log(x.mean() * 10)
            p = x / np.exp(log_z[other])
            h = p / (p + 6 / 10)
            expected += np.mean(-np.log(h[:, 0]) - np.log(1 - h[:, 1:]).sum(axis=1))
        assert parts(outputs, labels).item() == pytest.approx(expected, rel=1e-10)
        for side in (0, 1):
            kept = 0.5 * remembered[side][rows] + 0.5 * u[side]
            remembered[side][rows] = kept / np.linalg.norm(kept, axis=1, keepdims=True)
        np.testing.assert_allclose(parts.memory.numpy(), remembered, rtol=1e-12)


def test_crd_teaches_the_student_and_both_embeddings_and_never_the_memory():
    parts = memory()
    outputs, labels = batch([3, 0, 9, 5])
    parts(outputs, labels).backward()
    assert outputs.student_feature.grad.abs().max() > 0
    assert all(parameter.grad.abs().max() > 0 for parameter in parts.parameters())
    assert not parts.memory.requires_grad
    assert {name for name, _ in parts.named_parameters()} == {
        f"{who}_embedding.{what}" for who in ("student", "teacher") for what in ("weight", "bias")
    }


def test_crds_gradient_is_what_differences_say():
    rows, labels = torch.tensor([3, 0, 9, 5]), LABELS[[3, 0, 9, 5]]

    def loss(student_feature: torch.Tensor) -> torch.Tensor:
        parts = memory()
        parts.log_z.fill_(1.5)  # the gradient treats Z as a constant, also in the batch that sets it
        outputs = StepOutputs(student_feature, student_feature, teacher_feature=features(4, 5, seed=2), indices=rows)
        return parts(outputs._replace(generator=torch.Generator().manual_seed(7)), labels)

    student = features(4, 4, seed=1).requires_grad_()
    (ours,) = torch.autograd.grad(loss(student), student)
    with torch.no_grad():
        for row in range(4):
            for column in range(4):
                step = torch.zeros(4, 4, dtype=torch.float64)
                step[row, column] = 1e-6
                slope = (loss(student + step) - loss(student - step)) / 2e-6
                assert ours[row, column].item() == pytest.approx(slope.item(), rel=1e-6, abs=1e-8)


def test_the_memory_of_crd_forgets_by_its_momentum():
    parts = memory(momentum=0.0)
    outputs, labels = batch([3, 0, 9, 5])
    before = parts.memory.clone()
    parts(outputs, labels)
    embedded = parts.student_embedding(outputs.student_feature).detach()
    embedded = embedded / embedded.norm(dim=1, keepdim=True)
    torch.testing.assert_close(parts.memory[0, outputs.indices], embedded, rtol=1e-12, atol=1e-14)
    untouched = [row for row in range(10) if row not in (3, 0, 9, 5)]
    assert torch.equal(parts.memory[:, untouched], before[:, untouched])


def test_a_student_that_knows_every_sample_has_less_of_crds_loss_than_one_that_knows_none():
    parts = memory(negatives=40)
    outputs, labels = batch(list(range(10)))
    with torch.no_grad():
        parts.teacher_embedding.weight.copy_(features(3, 5, seed=4))
        parts(outputs, labels)  # this sets Z and fills the memory with every sample
        teacher = torch.nn.functional.normalize(parts.teacher_embedding(outputs.teacher_feature), dim=1)
        parts.memory[1] = teacher
        shown = torch.cat([torch.arange(10)[:, None], parts.draw_negatives(labels, torch.Generator())], dim=1)
        assert parts._side(teacher, 1, shown) < parts._side(teacher.flip(0), 1, shown)


def test_the_parts_of_crd_that_follow_from_the_data_are_not_saved():
    assert {name for name in memory().state_dict() if "embedding" not in name} == {"memory", "log_z"}
    assert memory().memory.abs().max() <= 1 / math.sqrt(3 / 3)
