import inspect

import pytest
import torch
from torch.nn.functional import cross_entropy

from trainables.losses import kd_loss
from trainables.methods import METHODS
from trainables.methods.method import LossParts, StepOutputs
from trainables.trial import TrialConfig

VALUES = TrialConfig(
    temperature=3.0, ce_weight=0.3, kd_weight=0.7, adapter_ce_weight=2.0, detach_adapter_target=False
).model_dump()
LABELS = torch.tensor([0, 1, 2, 3])


def leaf(seed: int) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(4, 5, dtype=torch.float64, generator=random).requires_grad_()


def outputs() -> StepOutputs:
    return StepOutputs(
        student_feature=leaf(0),
        student_logits=leaf(1),
        teacher_feature=leaf(2),
        teacher_logits=leaf(3),
        adapted_logits=leaf(4),
    )


def reached_by(part: torch.Tensor, given: StepOutputs) -> set[str]:
    gradients = torch.autograd.grad(part, list(given), retain_graph=True, allow_unused=True)
    return {
        name
        for name, gradient in zip(given._fields, gradients, strict=True)
        if gradient is not None and gradient.abs().max() > 0
    }


def losses(method: str, given: StepOutputs, **changes: object) -> LossParts:
    return METHODS[method].objective(VALUES | changes)(given, LABELS)


def test_ce_is_the_students_cross_entropy_whatever_the_weights():
    given = outputs()
    parts = losses("ce", given)
    assert parts.total.item() == pytest.approx(cross_entropy(given.student_logits, LABELS).item())
    assert reached_by(parts.total, given) == {"student_logits"}
    assert parts.kd is None
    assert parts.adapter is None


def test_kd_is_the_weighted_sum_of_its_parts():
    given = outputs()
    parts = losses("kd", given)
    ce = cross_entropy(given.student_logits, LABELS)
    kd = kd_loss(given.student_logits, given.teacher_logits, temperature=3.0)
    assert parts.ce.item() == pytest.approx(ce.item())
    assert parts.kd.item() == pytest.approx(kd.item())
    assert parts.total.item() == pytest.approx((0.3 * ce + 0.7 * kd).item())
    assert parts.adapter is None


def test_pesf_kd_is_the_weighted_sum_of_its_parts():
    given = outputs()
    parts = losses("pesf_kd", given)
    ce = cross_entropy(given.student_logits, LABELS)
    kd = kd_loss(given.student_logits, given.adapted_logits, temperature=3.0)
    adapter = cross_entropy(given.adapted_logits, LABELS)
    assert parts.ce.item() == pytest.approx(ce.item())
    assert parts.kd.item() == pytest.approx(kd.item())
    assert parts.adapter.item() == pytest.approx(adapter.item())
    assert parts.total.item() == pytest.approx((0.3 * ce + 0.7 * kd + 2.0 * adapter).item())


def test_each_part_of_pesf_kd_sends_gradient_where_it_belongs():
    given = outputs()
    parts = losses("pesf_kd", given)
    assert reached_by(parts.ce, given) == {"student_logits"}
    assert reached_by(parts.kd, given) == {"student_logits", "adapted_logits"}
    assert reached_by(parts.adapter, given) == {"adapted_logits"}
    assert reached_by(parts.total, given) == {"student_logits", "adapted_logits"}


def test_a_detached_target_keeps_the_divergence_from_the_adapter_and_changes_no_value():
    given = outputs()
    parts = losses("pesf_kd", given, detach_adapter_target=True)
    assert reached_by(parts.kd, given) == {"student_logits"}
    assert reached_by(parts.total, given) == {"student_logits", "adapted_logits"}
    assert parts.total.item() == losses("pesf_kd", given).total.item()


def test_with_weight_zero_a_part_sends_no_gradient():
    given = outputs()
    alone = losses("pesf_kd", given, ce_weight=0.0, kd_weight=0.0)
    assert reached_by(alone.total, given) == {"adapted_logits"}
    untaught = losses("pesf_kd", given, adapter_ce_weight=0.0, detach_adapter_target=True)
    assert reached_by(untaught.total, given) == {"student_logits"}


@pytest.mark.parametrize("name", METHODS)
def test_every_method_tells_its_entry_the_same_as_itself(name):
    method, entry = METHODS[name], METHODS.entry(name)
    assert entry.needs_teacher == method.needs_teacher
    assert method.name == name
    assert method.has_adapter == entry.has_adapter
    assert method.loss_fields <= entry.fields
    assert entry.fields <= set(TrialConfig.model_fields)
    assert method.needs_teacher or not method.has_adapter


@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_its_values_by_keyword_from_the_trial(name):
    method = METHODS[name]
    positional = [p for p in inspect.signature(method.losses).parameters.values() if p.kind != p.KEYWORD_ONLY]
    assert [parameter.name for parameter in positional] == ["outputs", "labels"]
    assert method.loss_fields <= set(TrialConfig.model_fields)


def test_detached_parts_keep_values_and_lose_the_graph():
    given = outputs()
    parts = losses("kd", given)
    detached = parts.detach()
    assert detached.kd.item() == parts.kd.item()
    assert not detached.total.requires_grad
    assert detached.adapter is None
