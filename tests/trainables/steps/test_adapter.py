from typing import get_args

import pytest
import torch
from torch import nn

from trainables.process.randomness import seeded
from trainables.spec.methods.settings import AdapterKind
from trainables.steps.adapter import INITS, KINDS, TeacherAdapter

FEATURE_DIM, CLASSES, WIDTH, BATCH = 12, 5, 3, 8


def build(kind: str, init: str = "default", *, seed: int = 0) -> TeacherAdapter:
    """Return a randomly initialised adapter in float64."""
    with seeded(seed):
        head = nn.Linear(FEATURE_DIM, CLASSES)
        adapter = TeacherAdapter(FEATURE_DIM, CLASSES, WIDTH, kind=kind, init=init, head=head)
    return adapter.double()


def teacher_batch(seed: int = 0) -> tuple[torch.Tensor, torch.Tensor, nn.Linear]:
    """Return a teacher's features, logits and head."""
    with seeded(seed):  # the seed of `build`, so that both heads are equal
        head = nn.Linear(FEATURE_DIM, CLASSES).double()
    random = torch.Generator().manual_seed(seed + 1)
    feature = torch.randn(BATCH, FEATURE_DIM, dtype=torch.float64, generator=random)
    return feature, head(feature).detach(), head


def apply(weights: dict[str, torch.Tensor], layer: str, inputs: torch.Tensor) -> torch.Tensor:
    return inputs @ weights[f"{layer}.weight"].T + weights[f"{layer}.bias"]


def test_the_kinds_are_those_of_a_trial():
    assert get_args(AdapterKind) == KINDS


@pytest.mark.parametrize("kind", KINDS)
def test_a_zero_adapter_gives_the_teachers_logits_to_the_bit(kind):
    feature, logits, _ = teacher_batch()
    assert torch.equal(build(kind, "zero")(feature, logits), logits)


@pytest.mark.parametrize("kind", KINDS)
def test_a_default_adapter_changes_the_logits(kind):
    feature, logits, _ = teacher_batch()
    assert not torch.allclose(build(kind, "default")(feature, logits), logits)


def test_the_serial_correction_is_the_one_computed_from_its_weights():
    feature, logits, _ = teacher_batch()
    adapter = build("serial")
    w = adapter.state_dict()
    expected = logits + apply(w, "w3", apply(w, "w2", apply(w, "w1", feature)).clamp(min=0))
    torch.testing.assert_close(adapter(feature, logits), expected, rtol=1e-12, atol=1e-12)


def test_the_parallel_correction_is_the_one_computed_from_its_weights():
    feature, logits, _ = teacher_batch()
    adapter = build("parallel")
    w = adapter.state_dict()
    expected = logits + apply(w, "w1", feature) + apply(w, "w3", apply(w, "w2", feature).clamp(min=0))
    torch.testing.assert_close(adapter(feature, logits), expected, rtol=1e-12, atol=1e-12)


def test_the_logit_correction_is_the_one_computed_from_its_weights():
    feature, logits, _ = teacher_batch()
    adapter = build("logit")
    w = adapter.state_dict()
    expected = logits + apply(w, "w3", apply(w, "w2", logits).clamp(min=0))
    torch.testing.assert_close(adapter(feature, logits), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(adapter(torch.zeros_like(feature), logits), expected, rtol=0, atol=0)


def test_the_feature_adapter_is_the_head_applied_to_the_corrected_feature():
    feature, logits, head = teacher_batch()
    adapter = build("feature")
    w = adapter.state_dict()
    expected = head(feature + apply(w, "w3", apply(w, "w2", feature).clamp(min=0))).detach()
    torch.testing.assert_close(adapter(feature, logits), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    ("kind", "count"),
    [
        ("serial", (12 * 5 + 5) + (5 * 3 + 3) + (3 * 5 + 5)),
        ("parallel", (12 * 5 + 5) + (12 * 3 + 3) + (3 * 5 + 5)),
        ("logit", (5 * 3 + 3) + (3 * 5 + 5)),
        ("feature", (12 * 3 + 3) + (3 * 12 + 12)),
    ],
)
def test_each_kind_has_as_many_parameters_as_its_layers(kind, count):
    assert sum(parameter.numel() for parameter in build(kind).parameters()) == count


def test_the_frozen_head_is_neither_trained_nor_saved():
    adapter = build("feature")
    assert {name for name, _ in adapter.named_parameters()} == {
        "w2.weight",
        "w2.bias",
        "w3.weight",
        "w3.bias",
    }
    assert set(adapter.state_dict()) == {"w2.weight", "w2.bias", "w3.weight", "w3.bias"}
    feature, logits, _ = teacher_batch()
    adapter(feature, logits).sum().backward()
    assert not adapter.head_weight.requires_grad
    assert adapter.head_weight.grad is None


@pytest.mark.parametrize("kind", KINDS)
def test_gradient_reaches_the_last_layer_of_a_zero_adapter(kind):
    feature, logits, _ = teacher_batch()
    adapter = build(kind, "zero")
    adapter(feature, logits).square().sum().backward()
    assert adapter.w3.weight.grad.abs().max() > 0


def test_the_seed_alone_draws_the_weights():
    torch.manual_seed(1)
    first = build("serial", seed=5)
    torch.manual_seed(2)
    second = build("serial", seed=5)
    other = build("serial", seed=6)
    assert torch.equal(first.w2.weight, second.w2.weight)
    assert not torch.equal(first.w2.weight, other.w2.weight)


def test_the_feature_kind_asks_for_the_head():
    with pytest.raises(ValueError, match=r"head=teacher\.head"):
        TeacherAdapter(FEATURE_DIM, CLASSES, WIDTH, kind="feature")


def test_a_head_of_another_shape_is_refused():
    with pytest.raises(ValueError, match=r"\(4, 12\).*\(5, 12\)"):
        TeacherAdapter(FEATURE_DIM, CLASSES, WIDTH, kind="feature", head=nn.Linear(FEATURE_DIM, 4))


def test_an_unknown_kind_or_init_is_refused_by_name():
    with pytest.raises(ValueError, match="'seriel'; did you mean 'serial'"):
        TeacherAdapter(FEATURE_DIM, CLASSES, WIDTH, kind="seriel")
    with pytest.raises(ValueError, match="'zeros'; did you mean 'zero'"):
        TeacherAdapter(FEATURE_DIM, CLASSES, WIDTH, init="zeros")
    assert INITS == ("zero", "default", "normal")
