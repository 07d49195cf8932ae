import itertools

import pytest
import torch

from trainables.losses.parts import LossParts, StepOutputs
from trainables.methods.registry import METHODS
from trainables.steps.closed_form import ClosedForm

NUMBERS = [
    {"temperature": t, "ce_weight": a, "kd_weight": b, "adapter_ce_weight": c, "detach_adapter_target": detach}
    for t, a, b, c, detach in itertools.product((0.5, 1.0, 4.0), (0.0, 0.3), (0.0, 2.0), (0.0, 1.5), (False, True))
]


def random_batch(*sides: int, batch: int = 7, classes: int = 5) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(batch * classes)
    logits = 3 * torch.randn(2, *sides, batch, classes, dtype=torch.float64, generator=generator)
    return *logits, torch.randint(classes, (*sides, batch), generator=generator)


def by_autograd(
    method: str, student: torch.Tensor, target_logits: torch.Tensor, labels: torch.Tensor, **numbers: object
) -> tuple[LossParts, torch.Tensor, torch.Tensor | None]:
    """Return the losses and the gradients of student and target logits by autograd."""
    student, target_logits = student.clone().requires_grad_(), target_logits.clone().requires_grad_()
    adapted = target_logits if method == "pesf_kd" else None
    outputs = StepOutputs(student, student, teacher_logits=target_logits, adapted_logits=adapted)
    parts = METHODS[method].losses(outputs, labels, **numbers)
    parts.total.backward()
    return parts.detach(), student.grad, target_logits.grad


@pytest.mark.parametrize("numbers", NUMBERS, ids=str)
def test_pesf_kd_has_the_gradients_and_losses_that_autograd_finds(numbers):
    student, target_logits, labels = random_batch()
    numbers = numbers | {
        "pesf_variant": "paper",
        "distance": "kl",
        "gap_control": "none",
        "gap_target": 0.5,
        "gap_weight": 1.0,
    }
    form = METHODS["pesf_kd"].gradients(numbers)
    ours = form(student, target_logits, labels)
    parts, in_student, in_target = by_autograd("pesf_kd", student, target_logits, labels, **numbers)
    torch.testing.assert_close(ours.student, in_student, rtol=0, atol=1e-15)
    torch.testing.assert_close(ours.target, in_target, rtol=0, atol=1e-15)
    for name, part in form.parts(ours.log_p, labels)._asdict().items():
        torch.testing.assert_close(part, getattr(parts, name), rtol=1e-13, atol=1e-14, msg=name)


@pytest.mark.parametrize("batch", [1, 6])
@pytest.mark.parametrize("classes", [2, 100])
def test_kd_has_the_gradient_and_losses_that_autograd_finds(batch, classes):
    numbers = {"temperature": 3.0, "ce_weight": 0.7, "kd_weight": 0.9}
    student, target_logits, labels = random_batch(batch=batch, classes=classes)
    form = METHODS["kd"].gradients(numbers)
    ours = form(student, target_logits, labels)
    parts, in_student, _ = by_autograd("kd", student, target_logits, labels, **numbers)
    torch.testing.assert_close(ours.student, in_student, rtol=0, atol=1e-15)
    assert ours.target is None
    assert form.parts(ours.log_p, labels).adapter is None
    torch.testing.assert_close(form.parts(ours.log_p, labels).total, parts.total, rtol=1e-13, atol=0)


def test_objectives_side_by_side_are_each_what_they_are_alone():
    student, target_logits, labels = random_batch(3)
    temperature, weight = torch.tensor([1.0, 2.0, 8.0]), torch.tensor([0.1, 1.0, 3.0])
    together = ClosedForm(temperature=temperature, ce_weight=1.0, kd_weight=weight, adapter_ce_weight=weight)
    gradients = together(student, target_logits, labels)
    parts = together.parts(gradients.log_p, labels)
    for number in range(3):
        t, w = float(temperature[number]), float(weight[number])
        alone = ClosedForm(temperature=t, ce_weight=1.0, kd_weight=w, adapter_ce_weight=w)
        own = alone(student[number], target_logits[number], labels[number])
        for name in ("student", "target", "log_p"):
            torch.testing.assert_close(getattr(gradients, name)[number], getattr(own, name), rtol=1e-6, atol=1e-9)
        for name in ("total", "ce", "kd", "adapter"):
            part = getattr(alone.parts(own.log_p, labels[number]), name)
            torch.testing.assert_close(getattr(parts, name)[number], part, rtol=1e-6, atol=1e-9)


def test_batches_of_several_sizes_take_turns():
    form = ClosedForm(temperature=2.0, ce_weight=1.0, kd_weight=1.0, adapter_ce_weight=1.0)
    for batch in (4, 9, 4):
        student, target_logits, labels = random_batch(batch=batch)
        fresh = ClosedForm(temperature=2.0, ce_weight=1.0, kd_weight=1.0, adapter_ce_weight=1.0)
        assert torch.equal(form(student, target_logits, labels).student, fresh(student, target_logits, labels).student)


def test_a_student_that_says_what_its_teacher_says_is_pulled_by_the_labels_alone():
    student, _, labels = random_batch()
    gradients = ClosedForm(temperature=4.0, ce_weight=0.0, kd_weight=5.0)(student, student, labels)
    assert gradients.student.abs().max() < 1e-15


def test_logits_of_any_size_give_finite_gradients_in_float32():
    form = ClosedForm(temperature=0.05, ce_weight=1.0, kd_weight=1.0, adapter_ce_weight=1.0)
    student = torch.tensor([[1e4, -1e4, 0.0], [-3e4, 3e4, 3e4]])
    gradients = form(student, -student, torch.tensor([0, 1]))
    assert gradients.student.isfinite().all()
    assert gradients.target.isfinite().all()


def test_a_batch_that_is_not_finite_shows_in_its_own_gradients_and_not_in_the_next():
    form = ClosedForm(temperature=2.0, ce_weight=1.0, kd_weight=1.0, adapter_ce_weight=1.0)
    student, target_logits, labels = random_batch()
    spoilt = form(student, target_logits * float("nan"), labels)
    assert not spoilt.student.isfinite().any()
    parts = form.parts(spoilt.log_p, labels)
    assert parts.ce.isfinite()
    assert parts.kd.isnan()
    assert parts.adapter.isnan()
    assert form(student, target_logits, labels).student.isfinite().all()
