"""Losses of the stages' feature maps, against NumPy and SciPy in float64, their invariances, and unequal networks."""

import numpy as np
import pytest
import torch
from scipy.stats import norm
from torch.nn.functional import adaptive_avg_pool2d

from tests.trainables.conftest import IMAGE_METHODS, small_config
from tests.trainables.packing.runs import random_dataset, random_teacher
from trainables.conformance import of_losses, of_trials
from trainables.conformance.case import Bench, Case
from trainables.losses.parts import StepOutputs
from trainables.methods.at import at_loss, attention
from trainables.methods.fitnet import HintRegressor
from trainables.methods.maps import MapPair, average_to
from trainables.methods.method import PartsSetting
from trainables.methods.registry import METHODS
from trainables.methods.sp import sp_loss
from trainables.methods.vid import VariationalRegressor
from trainables.run.run import DistillationRun
from trainables.spec.methods import method_spec
from trainables.spec.trial import TrialConfig

pytestmark = pytest.mark.study

MAP_METHODS = [name for name in IMAGE_METHODS if method_spec(name).needs_maps]
EVERY_METHOD = pytest.mark.parametrize("method", MAP_METHODS)
LABELS = torch.tensor([0, 1, 2, 1])


def a_map(channels: int, size: int = 4, *, seed: int = 0, batch: int = 4) -> torch.Tensor:
    random = torch.Generator().manual_seed(seed)
    return torch.randn(batch, channels, size, size, dtype=torch.float64, generator=random)


def rotation(width: int) -> torch.Tensor:
    return torch.linalg.qr(a_map(1, width, seed=9)[0, 0]).Q


def outputs_of(student: list[torch.Tensor], teacher: list[torch.Tensor], parts=None) -> StepOutputs:
    """Return step outputs with these feature maps."""
    logits = a_map(5, 1, seed=8).flatten(1)
    return StepOutputs(
        logits, logits, parts=parts, student_maps=tuple(student), teacher_maps=tuple(teacher)
    )  # fmt: skip


def setting_of(student: list[torch.Tensor], teacher: list[torch.Tensor]) -> PartsSetting:
    return PartsSetting(5, 5, LABELS, *(tuple(tuple(m.shape[1:]) for m in maps) for maps in (student, teacher)))


def losses(method: str, student: list[torch.Tensor], teacher: list[torch.Tensor], parts=None):
    values = TrialConfig(ce_weight=0.3, kd_weight=0.7).model_dump()
    return METHODS[method].objective(values)(outputs_of(student, teacher, parts), LABELS)


# Feature maps of two networks with different stems and stages.
STUDENT = [a_map(2, 8, seed=1), a_map(3, 8, seed=2), a_map(4, 4, seed=3), a_map(6, 2, seed=4)]
TEACHER = [a_map(5, 8, seed=5), a_map(5, 4, seed=6), a_map(7, 8, seed=7), a_map(3, 2, seed=8), a_map(2, 1, seed=9)]


@pytest.mark.parametrize(("source", "target"), [(8, 8), (8, 4), (8, 1), (7, 3), (14, 4), (5, 4), (6, 5)])
def test_the_larger_map_is_averaged_as_adaptive_pooling_does(source, target):
    maps = a_map(3, source)
    expected = adaptive_avg_pool2d(maps, (target, target))
    torch.testing.assert_close(average_to(maps, (target, target)), expected, rtol=1e-13, atol=1e-15)
    other = a_map(2, target)
    for pair in (MapPair(maps, other), MapPair(other, maps)):
        student, teacher = pair.at_one_size()
        assert student.shape[2:] == teacher.shape[2:] == (target, target)
        assert (student.shape[1], teacher.shape[1]) == (pair.student.shape[1], pair.teacher.shape[1])


def test_at_agrees_with_numpy():
    def unit(maps: np.ndarray) -> np.ndarray:
        activity = (maps**2).mean(axis=1).reshape(len(maps), -1)
        return activity / np.linalg.norm(activity, axis=1, keepdims=True)

    student, teacher = a_map(3, 4, seed=1), a_map(5, 8, seed=2)
    pooled = teacher.numpy().reshape(4, 5, 4, 2, 4, 2).mean(axis=(3, 5))
    expected = np.mean((unit(student.numpy()) - unit(pooled)) ** 2)
    assert at_loss(student, teacher).item() == pytest.approx(expected, rel=1e-12)
    assert at_loss(teacher, student).item() == pytest.approx(expected, rel=1e-12)


def test_at_sees_neither_scale_nor_sign_nor_the_order_of_channels_and_sees_positions():
    student, teacher = a_map(6, seed=1), a_map(6, seed=2)
    value = at_loss(student, teacher).item()
    assert at_loss(3 * student, 0.2 * teacher).item() == pytest.approx(value, rel=1e-12)
    assert at_loss(-student[:, torch.randperm(6)], teacher).item() == pytest.approx(value, rel=1e-12)
    assert at_loss(5 * teacher[:, torch.randperm(6)], teacher).item() == pytest.approx(0.0, abs=1e-30)
    assert at_loss(student.flip(3), teacher).item() != pytest.approx(value, rel=1e-3)


def test_two_attentions_in_one_position_each_are_as_far_apart_as_can_be():
    student, teacher = torch.zeros(1, 2, 2, 2), torch.zeros(1, 3, 2, 2)
    student[..., 0, 0], teacher[..., 1, 1] = 7.0, 0.1
    assert attention(student).tolist() == [[1.0, 0.0, 0.0, 0.0]]
    assert at_loss(student, teacher).item() == pytest.approx(2 / 4)


def test_at_sums_over_the_stages_in_their_order_and_leaves_out_stems_and_what_is_left_over():
    parts = losses("at", STUDENT, TEACHER)
    expected = sum(at_loss(STUDENT[stage], TEACHER[stage]).item() for stage in (1, 2, 3))
    assert parts.kd.item() == pytest.approx(expected, rel=1e-12)
    assert parts.total.item() == pytest.approx((0.3 * parts.ce + 0.7 * parts.kd).item(), rel=1e-12)


def test_sp_agrees_with_numpy():
    def table(maps: np.ndarray) -> np.ndarray:
        flat = maps.reshape(len(maps), -1)
        products = flat @ flat.T
        return products / np.linalg.norm(products, axis=1, keepdims=True)

    student, teacher = a_map(3, 4, seed=1), a_map(5, 8, seed=2)
    expected = np.linalg.norm(table(student.numpy()) - table(teacher.numpy())) ** 2 / 4**2
    assert sp_loss(student, teacher).item() == pytest.approx(expected, rel=1e-12)


def test_sp_sees_neither_scale_nor_an_orthogonal_transformation_of_the_channels():
    student, teacher = a_map(6, seed=1), a_map(4, 8, seed=2)
    turned = torch.einsum("cd,bdhw->bchw", rotation(6), student)
    assert sp_loss(3 * turned, teacher).item() == pytest.approx(sp_loss(student, teacher).item(), rel=1e-12)
    assert sp_loss(turned, student).item() == pytest.approx(0.0, abs=1e-28)
    assert sp_loss(student[:1], teacher[:1]).item() == pytest.approx(0.0, abs=1e-28)
    assert sp_loss(student, teacher).item() > 1e-3


def test_sp_is_of_the_last_stages_alone():
    parts = losses("sp", STUDENT, TEACHER)
    assert parts.kd.item() == pytest.approx(sp_loss(STUDENT[-1], TEACHER[-1]).item(), rel=1e-12)
    assert parts.total.item() == pytest.approx((0.3 * parts.ce + 0.7 * parts.kd).item(), rel=1e-12)


@pytest.mark.parametrize("loss", [at_loss, sp_loss])
def test_the_gradient_of_a_comparison_is_what_differences_say(loss):
    student = a_map(2, 4, seed=1, batch=3).requires_grad_()
    assert torch.autograd.gradcheck(lambda s: loss(s, a_map(3, 2, seed=2, batch=3)), (student,))


@pytest.mark.parametrize("loss", [at_loss, sp_loss])
def test_a_comparison_and_its_gradient_are_finite_where_a_map_is_dead(loss):
    for student in (torch.zeros(3, 2, 4, 4), a_map(2, batch=3).float()):
        student.requires_grad_()
        for teacher in (torch.zeros(3, 2, 4, 4), a_map(3, 8, batch=3).float()):
            value = loss(student, teacher)
            (gradient,) = torch.autograd.grad(value, student)
            assert value.isfinite()
            assert gradient.isfinite().all()


@pytest.mark.parametrize(
    ("student", "teacher"), [(8, 8), (8, 4), (4, 8), (8, 2), (2, 8), (12, 4), (3, 9), (7, 3), (3, 7), (6, 4)]
)
def test_a_hint_of_any_size_is_regressed_to_the_teachers_or_to_the_smaller_of_both(student, teacher):
    regressor = HintRegressor((3, student, student), (5, teacher, teacher)).double()
    hint, target = regressor(MapPair(a_map(3, student), a_map(5, teacher, seed=1)))
    size = teacher if max(student, teacher) % min(student, teacher) == 0 else min(student, teacher)
    assert hint.shape == target.shape == (4, 5, size, size)
    assert all(p.numel() for p in regressor.parameters())


def test_a_hint_is_the_convolution_normalised_over_the_batch_and_cut_off_at_zero():
    regressor = HintRegressor((3, 4, 4), (5, 4, 4)).double()
    with torch.no_grad():
        regressor.bn.weight.copy_(torch.arange(1.0, 6.0))
        regressor.bn.bias.copy_(torch.linspace(-1, 1, 5))
    student = a_map(3)
    hint, _ = regressor(MapPair(student, a_map(5)))
    weight = regressor.conv.weight.detach().numpy()[:, :, 0, 0]
    mixed = np.einsum("oc,bchw->bohw", weight, student.numpy())
    mean, variance = mixed.mean(axis=(0, 2, 3), keepdims=True), mixed.var(axis=(0, 2, 3), keepdims=True)
    scale, shift = np.arange(1.0, 6.0)[:, None, None], np.linspace(-1, 1, 5)[:, None, None]
    expected = np.maximum(0, (mixed - mean) / np.sqrt(variance + 1e-5) * scale + shift)
    np.testing.assert_allclose(hint.detach().numpy(), expected, rtol=1e-9, atol=1e-12)


def test_fitnet_is_the_mean_squared_error_of_the_second_stages_hint_and_zero_where_it_is_right():
    parts = METHODS["fitnet"].build_parts({}, setting_of(STUDENT, TEACHER)).double()
    assert isinstance(parts.conv, torch.nn.ConvTranspose2d)  # 4 to 8 pixels
    hint, _ = parts(MapPair(STUDENT[2], TEACHER[2]))
    value = losses("fitnet", STUDENT, TEACHER, parts)
    expected = np.mean((hint.detach().numpy() - TEACHER[2].numpy()) ** 2)
    assert value.kd.item() == pytest.approx(expected, rel=1e-12)
    assert value.total.item() == pytest.approx((0.3 * value.ce + 0.7 * value.kd).item(), rel=1e-12)
    right = [*TEACHER[:2], hint.detach(), *TEACHER[3:]]
    assert losses("fitnet", STUDENT, right, parts).kd.item() == 0.0


def test_nets_with_a_single_stage_have_their_hint_there():
    parts = METHODS["fitnet"].build_parts({}, setting_of(STUDENT[:2], TEACHER)).double()
    value = losses("fitnet", STUDENT[:2], TEACHER, parts).kd.item()
    hint, _ = parts(MapPair(STUDENT[1], TEACHER[2]))
    assert value == pytest.approx((hint - TEACHER[2]).square().mean().item(), rel=1e-12)


def test_vid_is_the_negative_log_likelihood_of_a_gaussian():
    regressor = VariationalRegressor(3, 5).double()
    with torch.no_grad():
        regressor.scale.copy_(torch.linspace(-3, 3, 5))
    student, teacher = a_map(3, seed=1), a_map(5, seed=2)
    mean, variance = regressor.mean(student).detach().numpy(), regressor.variance.detach().numpy()
    np.testing.assert_allclose(variance, np.log1p(np.exp(np.linspace(-3, 3, 5))) + 1e-5, rtol=1e-12)
    likelihood = norm.logpdf(teacher.numpy(), loc=mean, scale=np.sqrt(variance)[:, None, None])
    expected = -likelihood.mean() - np.log(2 * np.pi) / 2
    assert regressor(MapPair(student, teacher)).item() == pytest.approx(expected, rel=1e-12)


def test_the_variances_of_vid_start_at_five_and_are_best_at_the_mean_squared_error():
    regressor = VariationalRegressor(3, 5).double()
    torch.testing.assert_close(regressor.variance.detach(), torch.full((5,), 5.0).double(), rtol=1e-6, atol=0)
    pair = MapPair(a_map(3, seed=1), a_map(5, seed=2))
    error = (pair.teacher - regressor.mean(pair.student)).square().mean(dim=(0, 2, 3)).detach()
    with torch.no_grad():
        regressor.scale.copy_((error - 1e-5).expm1().log())
    (gradient,) = torch.autograd.grad(regressor(pair), regressor.scale)
    assert gradient.abs().max() < 1e-12


def test_vid_sums_over_the_stages_with_a_regressor_for_each():
    parts = METHODS["vid"].build_parts({}, setting_of(STUDENT, TEACHER)).double()
    assert len(parts) == 3
    value = losses("vid", STUDENT, TEACHER, parts)
    expected = sum(parts[i](MapPair(STUDENT[i + 1], TEACHER[i + 1])).item() for i in range(3))
    assert value.kd.item() == pytest.approx(expected, rel=1e-12)
    assert value.total.item() == pytest.approx((0.3 * value.ce + 0.7 * value.kd).item(), rel=1e-12)


@pytest.mark.conformance
@EVERY_METHOD
@pytest.mark.parametrize(
    "check",
    [of_losses.gradient_reaches_who_learns_and_nobody_else, of_trials.a_resumed_trial_equals_one_never_stopped],
    ids=lambda check: check.__name__,
)
def test_a_pair_of_residual_nets_passes_the_checks_of_every_method(check, method, tmp_path):
    choices = (("student", "resnet8"), ("teacher", "resnet20"), ("batch_size", 40))
    data = random_dataset(16, 3, 64)
    check(Case(method, choices=choices), Bench(data, random_teacher(data, "resnet20"), None, tmp_path))


@pytest.mark.conformance
@EVERY_METHOD
@pytest.mark.parametrize(
    ("student", "teacher", "size", "precision"),
    [
        ("cnn_3_4", "cnn_32_64", 8, "fp32"),
        ("resnet8", "vgg8", 14, "fp32"),  # 7 to 3 pixels, and 4 to 1
        ("ShuffleV1", "resnet8x4", 16, "bf16"),
        ("resnet8a", "resnet14a", 9, "bf16"),
        pytest.param("ShuffleV1", "resnet32x4", 32, "fp32", marks=pytest.mark.slow),
        pytest.param("MobileNetV2", "wrn_40_2", 32, "bf16", marks=pytest.mark.slow),
        pytest.param("ShuffleV2", "vgg13", 30, "fp32", marks=pytest.mark.slow),
        pytest.param("cnn_8_16", "ResNet50", 14, "fp32", marks=pytest.mark.slow),
    ],
)
def test_nets_that_differ_in_their_maps_are_matched(student, teacher, size, precision, method):
    config = small_config(method=method, student=student, teacher=teacher, precision=precision, batch_size=6)
    data = random_dataset(size, 3, 6)
    run = DistillationRun(config, data, random_teacher(data, teacher))
    before = {who: [p.detach().clone() for p in each.parameters.values()] for who, each in run.trainers.items()}
    measures = run.train_epoch()
    assert all(np.isfinite(value) for value in measures.values())
    assert measures["train/loss_kd"] > 0
    for who, trainer in run.trainers.items():
        after = trainer.parameters.values()
        assert not any(torch.equal(old, new) for old, new in zip(before[who], after, strict=True))


@EVERY_METHOD
def test_evaluation_asks_for_no_maps(method, digits, teacher, monkeypatch):
    run = DistillationRun(small_config(method=method), digits, teacher)
    run.train_epoch()
    answers = []
    for name in ("train_batch", "validation"):
        ask = getattr(run.teacher_outputs, name)
        monkeypatch.setattr(
            run.teacher_outputs, name, lambda *given, ask=ask: answers.append(ask(*given)) or answers[-1]
        )
    run.evaluate()
    assert answers
    assert all(batch.maps is None for batch in answers)


@EVERY_METHOD
@pytest.mark.parametrize("who", ["student", "teacher"])
@pytest.mark.parametrize("net", ["torchvision:resnet18", "timm:resnet18"])
def test_a_net_of_a_library_is_refused_by_name(who, net, method):
    with pytest.raises(ValueError, match=f"'{method}' matches maps .* {who} '{net}' gives none.* such as kd or pkt"):
        TrialConfig(method=method, **{who: net})
    TrialConfig(method="pkt", **{who: net})


@EVERY_METHOD
def test_what_a_method_builds_for_maps_is_the_same_whatever_was_drawn_before(method, digits, teacher):
    torch.manual_seed(1)
    first = DistillationRun(small_config(method=method), digits, teacher)
    torch.rand(5)
    second = DistillationRun(small_config(method=method), digits, teacher)
    assert first.student.training
    assert not teacher.model.training
    for ours, theirs in zip(first.trainers.values(), second.trainers.values(), strict=True):
        for name, tensor in ours.module.state_dict().items():
            assert torch.equal(tensor, theirs.module.state_dict()[name])
    for buffer in first.student.buffers():
        assert buffer.max() <= 1  # the running statistics of batch norm are unchanged
