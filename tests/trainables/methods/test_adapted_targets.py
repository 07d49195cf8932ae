"""Adapters with methods on logits: values and gradients against float64 references written from the formulas."""

import math

import numpy as np
import pytest
import torch

from tests.trainables.losses.references import (
    entropy_of_others,
    mlkd_levels,
    released_nkd,
    released_rld,
    released_wkd,
    slope,
)
from trainables.losses.parts import StepOutputs
from trainables.methods.ctkd import LearntTemperature
from trainables.methods.registry import METHODS
from trainables.spec.trial import TrialConfig

B, C = 4, 5
LABELS = np.array([0, 1, 2, 3])
SETTINGS = {
    "temperature": 3.0, "ce_weight": 0.3, "kd_weight": 0.7, "adapter_ce_weight": 2.0, "ttm_gamma": 0.4,
    "dtkd_alpha": 3.0, "dtkd_beta": 0.5, "warmup_epochs": 4, "ctkd_curriculum_epochs": 6, "nkd_gamma": 1.5,
    "rld_alpha": 0.6, "rld_beta": 2.0, "mlkd_batch_weight": 0.5, "mlkd_class_weight": 2.0, "wkd_weight": 10.0,
    "wkd_sharpening": 1.5, "wkd_decay_start": 1.0,
}  # fmt: skip
DISTANCES = np.abs(np.subtract.outer(np.linspace(0, 1, C), np.linspace(0, 1, C)))
START, RANGE, THETA, EPOCH = 1.0, 20.0, 0.3, 2


def logits(seed):
    return 2 * np.random.default_rng(seed).standard_normal((B, C))


def log_softmax(values):
    return values - np.log(np.exp(values).sum(axis=1, keepdims=True))


def divergence(target, prediction):
    """Return KL(softmax(target) || softmax(prediction)) of each row."""
    p, q = log_softmax(target), log_softmax(prediction)
    return (np.exp(p) * (p - q)).sum(axis=1)


def cross_entropy(values):
    return -log_softmax(values)[np.arange(B), LABELS].mean()


def deviation(values):
    return np.sqrt(((values - values.mean(axis=1, keepdims=True)) ** 2).mean(axis=1, keepdims=True))


def ttm(student, adapted, **_):
    powers = np.exp(log_softmax(adapted)) ** 0.4
    return divergence(np.log(powers), student).mean()


def wttm(student, adapted, **_):
    powers = np.exp(log_softmax(adapted)) ** 0.4
    return (powers.sum(axis=1) * divergence(np.log(powers), student)).mean()


def atkd(student, adapted, *, constant, **_):
    of_student = 3 * deviation(constant)  # the student's temperature has no gradient
    rows = divergence(adapted / (3 * deviation(adapted)), student / of_student)
    return (rows * of_student[:, 0] ** 2).mean()


def dtkd(student, adapted, **_):
    """Return DTKD's loss, written from the formulas."""
    tops = [np.maximum(each.max(axis=1, keepdims=True), 0.1) for each in (student, adapted)]
    of_student, of_adapted = (2 * 3 * each / sum(tops) for each in tops)
    rows = divergence(adapted / of_adapted, student / of_student) * (of_student * of_adapted)[:, 0]
    return 3.0 * rows.mean() + 0.5 * 9 * divergence(adapted / 3, student / 3).mean()


def ctkd(student, adapted, *, theta=THETA, **_):
    temperature = START + RANGE / (1 + math.exp(-theta))
    return temperature**2 * divergence(adapted / temperature, student / temperature).mean()


def with_constant_confidence(loss, adapted, teacher):
    """The loss of `adapted`, with the label's part, which has no gradient for it, at the logits `teacher`."""
    return loss(adapted, 1.0) - loss(adapted, 0.0) + loss(teacher, 0.0)


def nkd(student, adapted, *, teacher, **_):
    def loss(target, weight):
        own = 1.5 * weight
        cross_entropy = released_nkd(student, target, LABELS, temperature=3.0, gamma=own)
        return cross_entropy - own * 9 * entropy_of_others(target, LABELS, temperature=3.0)

    return with_constant_confidence(loss, adapted, teacher)


def rld(student, adapted, **_):
    return released_rld(student, adapted, LABELS, temperature=3.0, alpha=0.6, beta=2.0)


def mlkd(student, adapted, **_):
    instance, batch, of_class = mlkd_levels(student, adapted, temperatures=(1.5, 2.25, 3.0, 3.75, 4.5))
    return instance + 0.5 * batch + 2.0 * of_class


def wkd_l(student, adapted, *, teacher, **_):
    def loss(target, weight):
        return released_wkd(student, target, LABELS, DISTANCES, temperature=3.0, weight=10.0 * weight, sharpening=1.5)

    return with_constant_confidence(loss, adapted, teacher)


REFERENCES = {
    "ttm": ttm, "wttm": wttm, "atkd": atkd, "dtkd": dtkd, "ctkd": ctkd, "nkd": nkd, "rld": rld, "mlkd": mlkd,
    "wkd_l": wkd_l,
}  # fmt: skip
WARM = {"dtkd": (EPOCH + 1) / 4, "rld": (EPOCH + 1) / 4}


def reference(method, student, adapted, **values):
    kd = REFERENCES[method](student, adapted, **values)
    weight = 0.7 * WARM.get(method, 1.0)
    return 0.3 * cross_entropy(student) + weight * kd + 2.0 * cross_entropy(adapted)


def step(method, *, detached=False):
    student, adapted = (torch.tensor(logits(seed), requires_grad=True) for seed in (1, 2))
    parts = LearntTemperature(START, RANGE).double()
    torch.nn.init.constant_(parts.theta, THETA)
    outputs = StepOutputs(
        student_feature=torch.zeros(B, 2, dtype=torch.float64),
        student_logits=student,
        teacher_feature=torch.zeros(B, 2, dtype=torch.float64),
        teacher_logits=torch.tensor(logits(3)),
        adapted_logits=adapted,
        parts=parts,
        epoch=EPOCH,
        epochs=4,
        class_distances=torch.tensor(DISTANCES),
    )
    config = TrialConfig(method=method, adapter=True, **SETTINGS, detach_adapter_target=detached)
    found = METHODS[method].objective(config.model_dump())(outputs, torch.tensor(LABELS))
    found.total.backward()
    return found, student.grad.numpy(), adapted.grad.numpy(), parts.theta.grad


@pytest.mark.parametrize("method", REFERENCES)
def test_value_and_gradients_are_those_of_the_formula_on_adapted_logits(method):
    found, of_student, of_adapted, _ = step(method)
    student, adapted = logits(1), logits(2)
    fixed = {"constant": student, "teacher": adapted}
    assert found.total.item() == pytest.approx(reference(method, student, adapted, **fixed), rel=1e-9)
    assert found.adapter.item() == pytest.approx(cross_entropy(adapted), rel=1e-12)
    expected = slope(lambda each: reference(method, each, adapted, **fixed), student)
    np.testing.assert_allclose(of_student, expected, atol=1e-8)
    expected = slope(lambda each: reference(method, student, each, **fixed), adapted)
    np.testing.assert_allclose(of_adapted, expected, atol=1e-8)


@pytest.mark.parametrize("method", REFERENCES)
def test_a_detached_target_leaves_the_adapter_its_cross_entropy_alone(method):
    found, of_student, of_adapted, _ = step(method, detached=True)
    np.testing.assert_allclose(of_adapted, slope(lambda each: 2.0 * cross_entropy(each), logits(2)), atol=1e-8)
    joint = step(method)
    assert found.total.item() == joint[0].total.item()
    np.testing.assert_array_equal(of_student, joint[1])


def test_the_learnt_temperature_opposes_student_and_adapter():
    *_, of_theta = step("ctkd")
    student, adapted = logits(1), logits(2)
    upwards = slope(lambda theta: 0.7 * ctkd(student, adapted, theta=float(theta[0])), np.array([THETA]))
    strength = (1 - math.cos(math.pi * (EPOCH + 1) / 6)) / 2
    assert of_theta.item() == pytest.approx(-strength * upwards[0], rel=1e-6)


def test_the_scale_of_adapted_logits_has_no_gradient_in_atkd():
    """The loss does not depend on the scale, so only the cross-entropy changes it."""
    *_, of_adapted, _ = step("atkd")
    adapted = logits(2)
    own = slope(lambda each: 2.0 * cross_entropy(each), adapted)
    along = ((of_adapted - own) * (adapted - adapted.mean(axis=1, keepdims=True))).sum(axis=1)
    np.testing.assert_allclose(along, 0, atol=1e-8)
