import copy

import pytest
import torch

from tests.trainables.conftest import small_config
from trainables.costs.epoch import run_epoch
from trainables.models import build_model
from trainables.models.compute import arithmetic, feature_and_logits, forward_pass, place
from trainables.process.randomness import seeded
from trainables.run.checkpoint import load_checkpoint, save_checkpoint
from trainables.run.run import DistillationRun
from trainables.teacher_outputs.frozen import FrozenTeacher, Renormalisation

pytestmark = pytest.mark.study

CPU = torch.device("cpu")
# Wide enough for the channels-last layout.
WIDE = {"student": "cnn_8_16", "epochs": 2}


def build(name: str, size: int = 8) -> tuple:
    with seeded(0):
        return build_model(name, num_classes=10, in_channels=3), torch.randn(6, 3, size, size)


def layouts(module: torch.nn.Module) -> set[bool]:
    weights = [p for p in module.parameters() if p.dim() == 4 and p.shape[1] > 1 and p.shape[2] > 1]
    return {weight.is_contiguous(memory_format=torch.channels_last) for weight in weights}


@pytest.mark.parametrize(("name", "channels_last"), [("cnn_3_4", False), ("cnn_8_16", True), ("resnet20", True)])
def test_wide_nets_lie_with_their_channels_last_wherever_they_come_from(name, channels_last):
    model, _ = build(name)
    for before in (torch.contiguous_format, torch.channels_last):
        model.to(memory_format=before)
        assert layouts(place(model, CPU, "fp32")) == {channels_last}


@pytest.mark.study
@pytest.mark.parametrize("name", ["cnn_16_32", "resnet8", "resnet8a", "wrn_16_1", "MobileNetV2", "ShuffleV2", "vgg8"])
def test_a_net_says_the_same_in_either_layout(name):
    model, images = build(name, size=32)
    model = model.double()
    placed = place(copy.deepcopy(model), CPU, "fp32")
    expected = model(images.double())
    torch.testing.assert_close(placed(images.double()), expected, rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(
        placed(images.double().contiguous(memory_format=torch.channels_last)), expected, rtol=1e-10, atol=1e-12
    )


def test_in_float32_feature_and_logits_are_the_nets_own():
    model, images = build("cnn_8_16")
    with arithmetic("fp32", CPU):
        feature, logits = feature_and_logits(model, images)
    again = copy.deepcopy(model)
    assert torch.equal(feature, again.features(images))
    assert torch.equal(logits, again(images))


@pytest.mark.parametrize("name", ["cnn_16_32", "resnet8"])
def test_in_bfloat16_outputs_and_gradients_are_float32_and_near_those_of_float32(name):
    model, images = build(name, size=16)
    other = copy.deepcopy(model)
    with arithmetic("bf16", CPU):
        feature, logits = feature_and_logits(model, images)
    # Convolutions ran in bfloat16, and the head in float32 on their output.
    assert not torch.equal(logits, other(images))
    assert torch.equal(logits, model.head(feature))
    assert feature.dtype == logits.dtype == torch.float32
    torch.testing.assert_close(logits, other(images), rtol=0.05, atol=0.05)
    logits.logsumexp(dim=1).sum().backward()
    other(images).logsumexp(dim=1).sum().backward()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert ours.dtype == ours.grad.dtype == torch.float32
        cosine = torch.cosine_similarity(ours.grad.flatten(), theirs.grad.flatten(), dim=0)
        assert cosine > 0.9 or theirs.grad.norm() < 1e-3


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("name", ["cnn_16_32", "resnet8", "wrn_16_1"])
def test_maps_come_from_the_pass_that_gives_feature_and_logits_in_float32(name, precision):
    model, images = build(name, size=16)
    plain, with_maps = place(copy.deepcopy(model), CPU, precision), place(copy.deepcopy(model), CPU, precision)
    with arithmetic(precision, CPU):
        feature, logits = feature_and_logits(plain, images)
        ours, theirs, maps = forward_pass(with_maps, images, maps=True)
        assert forward_pass(plain, images, maps=False)[2] is None
    assert torch.equal(ours, feature)
    assert torch.equal(theirs, logits)
    expected = model.stages(images).maps
    assert len(maps) == len(expected)
    for one, other in zip(maps, expected, strict=True):
        assert one.dtype == torch.float32
        assert one.requires_grad
        assert one.shape == other.shape
        torch.testing.assert_close(one, other, rtol=0.1, atol=0.1 if precision == "bf16" else 1e-4)
    assert torch.equal(maps[0], maps[0].bfloat16().float()) == (precision == "bf16")


def test_a_teacher_gives_maps_where_they_are_asked_for_and_of_images_as_it_knows_them():
    model, images = build("cnn_8_16")
    renormalise = Renormalisation((0.5, 2.0, 1.0), (0.1, 0.0, -1.0))
    teacher = FrozenTeacher(model, renormalise=renormalise)
    answer = teacher(images, maps=True)
    scale, shift = (torch.tensor(each).view(1, 3, 1, 1) for each in renormalise)
    expected = model.feature_maps(images * scale + shift)
    assert torch.equal(answer.logits, expected.logits)
    assert all(torch.equal(one, other) for one, other in zip(answer.maps, expected.maps, strict=True))
    assert not any(each.requires_grad for each in answer.maps)
    assert teacher(images).maps is None


def test_a_teachers_logits_are_its_head_in_float32_whatever_surrounds_it():
    teacher = FrozenTeacher(build("cnn_8_16")[0])
    with arithmetic("bf16", CPU):
        answer = teacher(torch.randn(4, 3, 8, 8))
    assert answer.feature.dtype == torch.float32
    assert torch.equal(answer.logits, teacher.head(answer.feature))


@pytest.mark.study
def test_a_trial_in_bfloat16_learns_as_one_in_float32_does(digits, teacher):
    runs = [DistillationRun(small_config(**WIDE, precision=p), digits, teacher) for p in ("fp32", "bf16")]
    for _ in range(2):
        full, half = (run_epoch(run) for run in runs)
    assert half["train/loss"] != full["train/loss"]
    assert half["train/loss"] == pytest.approx(full["train/loss"], rel=0.05)
    assert half["val/accuracy"] == pytest.approx(full["val/accuracy"], abs=0.1)
    # The teacher is evaluated in float32 in both.
    assert half["val/sharpness_teacher"] == full["val/sharpness_teacher"]
    for tensor in runs[1].state_dict()["tensors"].values():
        assert tensor.dtype in (torch.float32, torch.int64)


@pytest.mark.study
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_wide_student_repeats_and_resumes_to_the_same_bits(precision, digits, teacher, tmp_path):
    config = small_config(**WIDE, precision=precision)
    whole, first, second = (DistillationRun(config, digits, teacher) for _ in range(3))
    expected = [run_epoch(whole), run_epoch(whole)][-1]
    run_epoch(first)
    save_checkpoint(first, tmp_path)
    load_checkpoint(second, tmp_path)
    measures = run_epoch(second)
    assert measures["train/loss"] == expected["train/loss"]
    assert measures["val/loss"] == expected["val/loss"]
    for name, tensor in whole.state_dict()["tensors"].items():
        assert torch.equal(second.state_dict()["tensors"][name], tensor), name


def test_stored_outputs_are_used_as_they_come_in_bfloat16_too(digits, teacher):
    class Watching:
        forwards = 0
        stored = True
        numbers_per_sample = 1000

        def train_batch(self, indices, slot, images):
            assert not torch.is_autocast_enabled("cpu")
            return teacher(images)

        def validation(self, images):
            return teacher(images)

    run = DistillationRun(small_config(**WIDE, precision="bf16"), digits, teacher, teacher_outputs=Watching())
    run.train_epoch()
