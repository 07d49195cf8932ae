import copy

import pytest
import torch

from trainables.data.views import Normaliser
from trainables.models import build_model
from trainables.teacher_outputs.frozen import FrozenTeacher, Renormalisation

OURS = ((0.5, 0.4, 0.3), (0.25, 0.2, 0.3))
ITS_OWN = ((0.48, 0.45, 0.41), (0.22, 0.23, 0.24))


def test_a_frozen_teacher_stays_in_eval_mode_and_without_gradient(teacher):
    before = {name: value.clone() for name, value in teacher.state_dict().items()}
    teacher.train()
    assert not any(module.training for module in teacher.modules())
    images = torch.randn(16, 1, 8, 8, requires_grad=True)
    feature, logits, _ = teacher(images)
    assert not feature.requires_grad
    assert not logits.requires_grad
    assert not any(parameter.requires_grad for parameter in teacher.parameters())
    for name, value in teacher.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_a_teachers_logits_are_its_head_applied_to_its_feature(teacher):
    feature, logits, _ = teacher(torch.randn(4, 1, 8, 8))
    assert feature.shape == (4, teacher.head.in_features)
    torch.testing.assert_close(logits, feature @ teacher.head.weight.T + teacher.head.bias)


def test_teachers_with_other_weights_have_other_digests():
    first = build_model("cnn_3_4", num_classes=10, in_channels=1)
    second = build_model("cnn_3_4", num_classes=10, in_channels=1)
    digest = FrozenTeacher(first).digest
    assert FrozenTeacher(second).digest != digest
    second.load_state_dict(first.state_dict())
    assert FrozenTeacher(second).digest == digest


def network(seed: int = 0) -> torch.nn.Module:
    torch.manual_seed(seed)
    net = build_model("resnet8", num_classes=10)
    net(torch.randn(16, 3, 16, 16))  # sets the running statistics
    return net


def test_images_normalised_otherwise_give_what_its_own_normalisation_gives():
    net = network().double()
    pixels = torch.rand(8, 3, 16, 16, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    mean, std, own_mean, own_std = (torch.tensor(v, dtype=torch.float64).view(1, 3, 1, 1) for v in (*OURS, *ITS_OWN))
    teacher = FrozenTeacher(net, renormalise=Renormalisation.between(*OURS, *ITS_OWN))
    found = teacher((pixels - mean) / std)
    # In float64, where rounding cannot hide a border padded with another colour.
    torch.testing.assert_close(found.feature, net.features((pixels - own_mean) / own_std), rtol=1e-12, atol=1e-12)
    unaware = FrozenTeacher(copy.deepcopy(net))
    assert not torch.allclose(unaware((pixels - mean) / std).logits, found.logits, atol=1e-2)


def test_it_holds_for_a_real_batch_in_float32_whatever_its_layout():
    net = network(1)
    images = torch.randint(0, 256, (8, 3, 16, 16), dtype=torch.uint8, generator=torch.Generator().manual_seed(2))
    teacher = FrozenTeacher(net, renormalise=Renormalisation.between(*OURS, *ITS_OWN))
    cpu = torch.device("cpu")
    expected = FrozenTeacher(copy.deepcopy(net))(Normaliser(*ITS_OWN, cpu)(images)).logits
    for layout in (torch.contiguous_format, torch.channels_last):
        given = Normaliser(*OURS, cpu)(images.contiguous(memory_format=layout))
        torch.testing.assert_close(teacher(given).logits, expected, rtol=1e-4, atol=1e-4)
    assert teacher(given).logits.dtype == torch.float32


def test_the_same_normalisation_is_left_alone_to_the_bit():
    assert Renormalisation.between(*OURS, *OURS) is None
    net = network()
    images = torch.randn(4, 3, 16, 16)
    plain = FrozenTeacher(copy.deepcopy(net))
    assert torch.equal(FrozenTeacher(net, renormalise=None)(images).logits, plain(images).logits)


def test_a_teachers_digest_tells_its_normalisation_and_so_does_the_key_of_its_outputs():
    net = network()
    plain = FrozenTeacher(copy.deepcopy(net)).digest
    one = FrozenTeacher(copy.deepcopy(net), renormalise=Renormalisation.between(*OURS, *ITS_OWN)).digest
    other = FrozenTeacher(copy.deepcopy(net), renormalise=Renormalisation.between(*ITS_OWN, *OURS)).digest
    assert len({plain, one, other}) == 3


@pytest.mark.parametrize("move", [copy.deepcopy, lambda teacher: teacher.to(memory_format=torch.channels_last)])
def test_a_copy_or_another_layout_keeps_the_renormalisation(move):
    teacher = FrozenTeacher(network(), renormalise=Renormalisation.between(*OURS, *ITS_OWN))
    images = torch.randn(4, 3, 16, 16)
    expected = teacher(images).logits
    torch.testing.assert_close(move(teacher)(images).logits, expected, rtol=1e-4, atol=1e-4)
