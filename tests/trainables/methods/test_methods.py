import inspect
import math

import pytest
import torch
from torch.nn.functional import cross_entropy

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
from trainables.losses.parts import LossParts, StepOutputs
from trainables.losses.transport import wkd_loss
from trainables.methods.method import PartsSetting
from trainables.methods.registry import METHODS
from trainables.spec.trial import TrialConfig, config_fields

VALUES = TrialConfig(
    temperature=3.0, ce_weight=0.3, kd_weight=0.7, adapter_ce_weight=2.0, detach_adapter_target=False
).model_dump()
LABELS = torch.tensor([0, 1, 2, 3])
DISTANCES = 0.5 * (1 - torch.eye(5))


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
        class_distances=DISTANCES,
    )


def reached_by(part: torch.Tensor, given: StepOutputs) -> set[str]:
    """Return the names of the outputs that get a nonzero gradient from a part of the loss."""
    tensors = {
        name: each for name, each in given._asdict().items() if isinstance(each, torch.Tensor) and each.requires_grad
    }
    gradients = torch.autograd.grad(part, list(tensors.values()), retain_graph=True, allow_unused=True)
    return {
        name
        for name, gradient in zip(tensors, gradients, strict=True)
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
    given = outputs()._replace(adapted_logits=None)
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


@pytest.mark.conformance
@pytest.mark.parametrize("name", METHODS)
def test_every_method_takes_its_values_by_keyword_from_the_trial(name):
    method = METHODS[name]
    positional = [p for p in inspect.signature(method.losses).parameters.values() if p.kind != p.KEYWORD_ONLY]
    assert [parameter.name for parameter in positional] == ["outputs", "labels"]
    assert method.loss_fields <= set(config_fields())


def test_detached_parts_keep_values_and_lose_the_graph():
    given = outputs()._replace(adapted_logits=None)
    parts = losses("kd", given)
    detached = parts.detach()
    assert detached.kd.item() == parts.kd.item()
    assert not detached.total.requires_grad
    assert detached.adapter is None


T = 3.0  # temperature in VALUES
OWN_LOSSES = {
    "atkd": lambda s, t, _: atkd_loss(s, t, temperature=T),
    "dkd": lambda s, t, y: dkd_loss(s, t, y, temperature=T, alpha=1.0, beta=8.0),
    "dist": lambda s, t, _: dist_loss(s, t, temperature=T, beta=0.5, gamma=2.0),
    "logit_standardisation": lambda s, t, _: standardised_kd_loss(s, t, temperature=T),
    "dtkd": lambda s, t, _: 2.0 * dtkd_loss(s, t, temperature=T) + 0.5 * kd_loss(s, t, temperature=T),
    "ttm": lambda s, t, _: ttm_loss(s, t, gamma=0.2),
    "wttm": lambda s, t, _: ttm_loss(s, t, gamma=0.2, weighted=True),
    "nkd": lambda s, t, y: nkd_loss(s, t, y, temperature=T, gamma=2.5),
    "pld": lambda s, t, y: pld_loss(s, t, y, temperature=T),
    "rld": lambda s, t, y: rld_loss(s, t, y, temperature=T, alpha=0.5, beta=2.0),
    "mlkd": lambda s, t, _: mlkd_loss(s, t, temperature=T, batch_weight=0.5, class_weight=2.0),
    "wkd_l": lambda s, t, y: wkd_loss(s, t, y, DISTANCES, temperature=T, weight=4.0, sharpening=2.0),
}
OWN_VALUES = {
    "dist_beta": 0.5, "dist_gamma": 2.0, "ttm_gamma": 0.2, "dtkd_alpha": 2.0, "dtkd_beta": 0.5, "nkd_gamma": 2.5,
    "rld_alpha": 0.5, "rld_beta": 2.0, "mlkd_batch_weight": 0.5, "mlkd_class_weight": 2.0, "wkd_weight": 4.0,
    "wkd_sharpening": 2.0,
}  # fmt: skip


@pytest.mark.parametrize("name", OWN_LOSSES)
def test_a_method_of_logits_adds_its_own_loss_to_the_cross_entropy(name):
    given = outputs()._replace(adapted_logits=None)
    parts = losses(name, given, **OWN_VALUES)
    ce = cross_entropy(given.student_logits, LABELS)
    kd = OWN_LOSSES[name](given.student_logits, given.teacher_logits, LABELS)
    assert parts.ce.item() == ce.item()
    assert parts.kd.item() == kd.item()
    assert parts.total.item() == pytest.approx((0.3 * ce + 0.7 * kd).item(), rel=1e-14)
    assert parts.adapter is None


@pytest.mark.parametrize("name", ["dkd", "dist", "logit_standardisation", "nkd", "rld", "mlkd", "wkd_l"])
def test_with_an_adapter_the_adapted_logits_teach_and_learn_from_labels_too(name):
    given = outputs()
    parts = losses(name, given, **OWN_VALUES)
    ce, adapter = cross_entropy(given.student_logits, LABELS), cross_entropy(given.adapted_logits, LABELS)
    kd = OWN_LOSSES[name](given.student_logits, given.adapted_logits, LABELS)
    assert parts.kd.item() == kd.item()
    assert parts.total.item() == pytest.approx((0.3 * ce + 0.7 * kd + 2.0 * adapter).item(), rel=1e-14)
    assert reached_by(parts.kd, given) == {"student_logits", "adapted_logits"}
    assert reached_by(parts.adapter, given) == {"adapted_logits"}
    detached = losses(name, given, **OWN_VALUES, detach_adapter_target=True)
    assert reached_by(detached.kd, given) == {"student_logits"}
    assert detached.total.item() == parts.total.item()


def test_pesf_kd_by_squared_distance_is_the_weighted_sum_of_its_parts():
    given = outputs()
    parts = losses("pesf_kd", given, distance="mse")
    ce, adapter = cross_entropy(given.student_logits, LABELS), cross_entropy(given.adapted_logits, LABELS)
    kd = probability_mse_loss(given.student_logits, given.adapted_logits, temperature=T)
    assert parts.kd.item() == kd.item()
    assert parts.total.item() == pytest.approx((0.3 * ce + 0.7 * kd + 2.0 * adapter).item(), rel=1e-14)
    assert reached_by(parts.kd, given) == {"student_logits", "adapted_logits"}
    assert METHODS["pesf_kd"].gradients(VALUES | {"distance": "mse"}) is None
    assert METHODS["pesf_kd"].gradients(VALUES) is not None


def test_label_smoothing_is_the_cross_entropy_with_a_mixture_of_labels_and_all_classes():
    given = outputs()
    parts = losses("label_smoothing", given, label_smoothing=0.2)
    log_p = torch.log_softmax(given.student_logits, dim=1)
    target = 0.8 * torch.eye(5, dtype=torch.float64)[LABELS] + 0.2 / 5
    assert parts.total.item() == pytest.approx(-(target * log_p).sum(dim=1).mean().item(), rel=1e-14)
    plain = losses("label_smoothing", given, label_smoothing=0.0)
    assert plain.total.item() == pytest.approx(losses("ce", given).total.item(), rel=1e-14)


@pytest.mark.parametrize("name", ["dkd", "dtkd", "rld"])
def test_the_weight_grows_over_the_warm_up_and_not_beyond(name):
    given = outputs()._replace(adapted_logits=None)
    ce = losses(name, given).ce.item()
    full = losses(name, given)
    for epoch, share in ((0, 0.25), (1, 0.5), (3, 1.0), (9, 1.0)):
        warm = losses(name, given._replace(epoch=epoch), warmup_epochs=4)
        assert warm.kd.item() == full.kd.item()
        assert warm.total.item() - 0.3 * ce == pytest.approx(share * (full.total.item() - 0.3 * ce), rel=1e-12)


@pytest.mark.parametrize(
    ("epochs", "factors"), [(1, [1.0]), (4, [1, 1, 1, 0.75]), (240, {150: 1.0, 151: 1 - 3e-4, 195: 0.5, 239: 3e-4})]
)
def test_the_transport_of_wkd_l_fades_as_half_a_cosine_over_the_last_epochs(epochs, factors):
    given = outputs()._replace(adapted_logits=None, epochs=epochs)
    bare = losses("wkd_l", given, wkd_weight=0.0).kd.item()
    full = losses("wkd_l", given).kd.item() - bare
    for epoch, factor in factors.items() if isinstance(factors, dict) else enumerate(factors):
        found = losses("wkd_l", given._replace(epoch=epoch)).kd.item() - bare
        assert found == pytest.approx(factor * full, abs=1e-4 * full)
        kept = losses("wkd_l", given._replace(epoch=epoch), wkd_decay_start=1.0).kd.item() - bare
        assert kept == pytest.approx(full, rel=1e-12)


def with_temperature(epoch: int = 0) -> tuple[StepOutputs, torch.nn.Module]:
    setting = PartsSetting(3, 3, LABELS)
    parts = METHODS["ctkd"].build_parts(VALUES, setting).double()
    return outputs()._replace(adapted_logits=None, parts=parts, epoch=epoch), parts


def test_ctkd_starts_at_one_and_twenty_times_the_sigmoid_of_one():
    given, _ = with_temperature()
    temperature = 1 + 20 / (1 + math.exp(-1))
    kd = kd_loss(given.student_logits, given.teacher_logits, temperature=temperature)
    assert losses("ctkd", given).kd.item() == pytest.approx(kd.item(), rel=1e-12)


@pytest.mark.parametrize(
    ("epoch", "strength"), [(0, 0.5 - 0.5 * math.cos(math.pi / 10)), (4, 0.5), (9, 1.0), (50, 1.0)]
)
def test_the_temperature_of_ctkd_ascends_the_loss_as_strongly_as_the_curriculum_says(epoch, strength):
    given, parts = with_temperature(epoch)
    losses("ctkd", given).total.backward()

    def loss_at(theta: float) -> float:
        temperature = 1 + 20 / (1 + math.exp(-theta))
        return 0.7 * kd_loss(given.student_logits, given.teacher_logits, temperature=temperature).item()

    slope = (loss_at(1 + 1e-5) - loss_at(1 - 1e-5)) / 2e-5
    assert parts.theta.grad.item() == pytest.approx(-strength * slope, rel=1e-6)
    assert given.student_logits.grad is not None


def test_the_student_of_ctkd_descends_the_loss_as_that_of_kd_does():
    given, _ = with_temperature(epoch=9)
    losses("ctkd", given).total.backward()
    plain = outputs()._replace(adapted_logits=None)
    losses("kd", plain, temperature=1 + 20 / (1 + math.exp(-1))).total.backward()
    torch.testing.assert_close(given.student_logits.grad, plain.student_logits.grad, rtol=1e-12, atol=0)
