import hashlib
import sys

import pytest
import torch
from torch import nn

import trainables.models
from tests.trainables.models.nets import build
from trainables.models import DistillationModel, build_model
from trainables.models.interface import StageOutputs
from trainables.models.zoo import CIFAR_MODELS
from trainables.spec.architectures import CIFAR_NAMES, CNN_EXAMPLES, check_model_name, feature_dim

pytestmark = pytest.mark.study

# Published checkpoints at 100 classes and 3 channels: entries, parameters, and the first 16 hex digits of the sha256 of
# the sorted lines "key:comma-separated shape". Taken from the models as RepDistiller (commit eedab9d; MobileNetV2:
# b13aecc) and mdistiller (commit e8c5bb3) define them.
LITERATURE = {
    "resnet8": (56, 83_892, "63c6dd3cab44928c"),
    "resnet14": (92, 181_108, "65fcc9b5c0711d35"),
    "resnet20": (128, 278_324, "6eac2a732b1c4c40"),
    "resnet32": (200, 472_756, "56c7c2a379b47dca"),
    "resnet44": (272, 667_188, "02750f7c1082fb17"),
    "resnet56": (344, 861_620, "a56c1538f4e0a9ae"),
    "resnet110": (668, 1_736_564, "c17c0002f980b399"),
    "resnet8x4": (62, 1_233_540, "f78671249791e4c1"),
    "resnet32x4": (206, 7_433_860, "78ae047d8e1df52b"),
    "ResNet50": (320, 23_705_252, "377968813c0202d5"),
    "wrn_16_1": (82, 180_916, "819bc8854407ad0d"),
    "wrn_16_2": (83, 703_284, "2de31bd1c2238443"),
    "wrn_40_1": (226, 569_780, "9c00ed786ab33741"),
    "wrn_40_2": (227, 2_255_156, "1f7bf1e9e76f12fd"),
    "vgg8": (37, 3_965_028, "1b68d09a0a812e26"),
    "vgg11": (58, 9_277_284, "3a82ffb9e2e6e911"),
    "vgg13": (72, 9_462_180, "de86d77130aaf816"),
    "vgg16": (93, 14_774_436, "9946debb89394d41"),
    "vgg19": (114, 20_086_692, "2afaa392bdd8878a"),
    "MobileNetV2": (320, 812_836, "1d33c767e6932802"),
    "ShuffleV1": (296, 949_258, "71642334400d1ab6"),
    "ShuffleV2": (338, 1_355_528, "1b75a3aad615f94d"),
    # Those of pytorch_resnet_cifar10. The real checkpoints of resnet20a and resnet56a are in test_models_golden.py.
    "resnet8a": (44, 81_140, "34db3612fce71867"),
    "resnet14a": (80, 178_356, "52fc09ba61bd3d27"),
    "resnet20a": (116, 275_572, "6d78b5a01f12aae0"),
    "resnet32a": (188, 470_004, "3e38afac6aa2db77"),
    "resnet44a": (260, 664_436, "12a42a3b15caf5c2"),
    "resnet56a": (332, 858_868, "776529269dd914b8"),
    "resnet110a": (656, 1_733_812, "cf99319a0424d710"),
}

# One of each family, and both small networks. A result for one number of blocks holds for any number.
FAMILIES = (
    "cnn_3_4",
    "resnet8",
    "resnet8a",
    "resnet8x4",
    "wrn_16_1",
    "wrn_16_2",
    "vgg8",
    "vgg11",
    "MobileNetV2",
    "ShuffleV1",
    "ShuffleV2",
    "ResNet50",
)


def relative_error(found: torch.Tensor, expected: torch.Tensor) -> float:
    return float((found - expected).norm() / expected.norm())


def test_every_name_that_is_accepted_can_be_built():
    assert set(CIFAR_MODELS) == set(CIFAR_NAMES) == set(LITERATURE)
    for name in (*CNN_EXAMPLES, *CIFAR_NAMES):
        assert check_model_name(name) == name


def test_all_that_the_package_offers_is_there():
    for name in trainables.models.__all__:
        assert getattr(trainables.models, name).__name__ == name
    with pytest.raises(AttributeError, match="no attribute 'nonsense'"):
        trainables.models.nonsense  # noqa: B018


@pytest.mark.conformance
@pytest.mark.parametrize("name", CIFAR_NAMES)
def test_weights_have_the_names_shapes_and_number_of_the_literatures_checkpoints(name):
    with torch.device("meta"):
        model = build_model(name, num_classes=100)
    state = model.state_dict()
    lines = sorted(f"{key}:{','.join(map(str, value.shape))}" for key, value in state.items())
    fingerprint = hashlib.sha256("\n".join(lines).encode()).hexdigest()[:16]
    parameters = sum(parameter.numel() for parameter in model.parameters())
    assert (len(state), parameters, fingerprint) == LITERATURE[name]


@pytest.mark.conformance
@pytest.mark.parametrize("name", FAMILIES)
def test_the_logits_are_the_head_of_the_feature(name):
    model = build(name, num_classes=7).eval()
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    with torch.no_grad():
        feature, logits, both = model.features(images), model(images), model.feature_maps(images)
        assert isinstance(model.head, nn.Linear)
        assert feature.shape == (2, model.head.in_features)
        assert logits.shape == (2, model.head.out_features) == (2, 7)
        assert torch.equal(logits, model.head(feature))
        assert torch.equal(both.feature, feature)
        assert torch.equal(both.logits, logits)


@pytest.mark.conformance
@pytest.mark.parametrize("name", FAMILIES)
def test_maps_come_with_preactivations_of_the_same_shape(name):
    model = build(name).eval()
    with torch.no_grad():
        outputs = model.feature_maps(torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(1)))
    assert len(outputs.maps) == len(outputs.preactivations) >= 2
    assert [m.shape for m in outputs.maps] == [m.shape for m in outputs.preactivations]
    sizes = [m.shape[-1] for m in outputs.maps]
    assert sizes == sorted(sizes, reverse=True)
    assert outputs.preactivations[0] is outputs.maps[0]
    for maps, preactivations in zip(outputs.maps[1:], outputs.preactivations[1:], strict=True):
        if name == "MobileNetV2":
            assert maps is preactivations
        elif name.startswith("wrn"):
            assert not torch.equal(maps, preactivations)
        else:
            assert torch.equal(maps, preactivations.relu())
            assert preactivations.min() < 0


def test_the_last_preactivations_of_a_wide_resnet_make_its_feature():
    model = build("wrn_16_2").eval()
    with torch.no_grad():
        outputs = model.feature_maps(torch.randn(2, 3, 32, 32))
    assert torch.equal(outputs.preactivations[-1].relu().mean((2, 3)), outputs.feature)


@pytest.mark.conformance
@pytest.mark.parametrize("name", FAMILIES)
def test_one_pass_in_train_mode_moves_each_running_statistic_once(name):
    model = build(name, in_channels=1).train()
    model.feature_maps(torch.randn(4, 1, 16, 16))
    counters = [v for k, v in model.state_dict().items() if k.endswith("num_batches_tracked")]
    assert counters
    assert all(counter == 1 for counter in counters)


@pytest.mark.conformance
@pytest.mark.parametrize("size", [16, 64])
@pytest.mark.parametrize("name", FAMILIES)
@torch.no_grad()
def test_a_net_that_goes_on_from_its_own_maps_comes_to_its_own_feature(name, size):
    model = build_model(name, num_classes=5).eval()
    outputs = model.stages(torch.randn(2, 3, size, size))
    for index, maps in enumerate(outputs.maps[:-1]):
        assert torch.equal(model.resume(index, maps.clone()), outputs.feature), index


def test_nets_of_libraries_say_that_they_have_no_stages():
    model = build_model("torchvision:resnet18", num_classes=5)
    with pytest.raises(ValueError, match="cannot resume from the output of a stage"):
        model.resume(0, torch.zeros(1, 3, 8, 8))


@pytest.mark.conformance
@pytest.mark.parametrize("name", FAMILIES)
def test_every_parameter_learns(name):
    model = build(name, in_channels=1)
    model(torch.randn(4, 1, 16, 16)).square().sum().backward()
    for key, parameter in model.named_parameters():
        assert parameter.grad is not None, key
        assert parameter.grad.isfinite().all(), key


@pytest.mark.conformance
@pytest.mark.parametrize("size", [8, 9, 28, 33, 64])
@pytest.mark.parametrize("name", [name for name in FAMILIES if name != "ResNet50"])
def test_images_from_8_to_64_pixels_and_any_channels_are_taken(name, size):
    model = build(name, num_classes=5, in_channels=1).eval()
    with torch.no_grad():
        assert model(torch.randn(2, 1, size, size)).shape == (2, 5)


def test_a_small_net_keeps_where_strokes_lie():
    model = build("cnn_3_4", in_channels=1).eval()
    assert model.head.in_features == 4 * 4
    image = torch.zeros(1, 1, 8, 8)
    image[0, 0, 1, 1] = 1.0
    with torch.no_grad():
        here, there = model.features(image), model.features(image.roll((4, 4), (2, 3)))
    assert not torch.allclose(here, there)


def test_the_same_seed_gives_the_same_weights():
    for name in ("cnn_3_4", "resnet8", "vgg8"):
        first, second = build(name).state_dict(), build(name).state_dict()
        assert all(torch.equal(first[key], second[key]) for key in first)


def test_convolutions_start_with_hes_variance():
    weight = build("resnet8x4").state_dict()["layer3.0.conv2.weight"]
    assert weight.std().item() == pytest.approx((2 / (256 * 9)) ** 0.5, rel=0.01)


@pytest.mark.parametrize(
    ("given", "meant"),
    [
        ("resnet50", "ResNet50"),
        ("resnt20", "resnet20"),
        ("resnet20A", "resnet20a"),
        ("resnet18", "torchvision:resnet18"),
        ("mobilenet_v3_small", "torchvision:mobilenet_v3_small"),
        ("vit_tiny_patch16_224", "timm:vit_tiny_patch16_224"),
        ("resnet50.a1_in1k", "timm:resnet50.a1_in1k"),
        ("wrn-40-2", "wrn_40_2"),
        ("mobile_half", "MobileNetV2"),
        ("vgg13_bn", "vgg13"),
        ("shufflev1", "ShuffleV1"),
        ("cnn_0_4", "cnn_3_4"),
    ],
)
def test_an_unknown_name_is_refused_with_the_nearest_known_one(given, meant):
    with pytest.raises(ValueError, match=f"unknown model '{given}'; did you mean '{meant}'"):
        check_model_name(given)


def test_a_name_of_two_nets_is_refused_with_both():
    with pytest.raises(ValueError, match="did you mean 'ResNet50' or 'torchvision:resnet50'"):
        check_model_name("resnet50")
    with pytest.raises(ValueError, match="did you mean 'vgg13' or 'torchvision:vgg13_bn'"):
        check_model_name("vgg13_bn")


@pytest.mark.parametrize("sizes", [{"num_classes": 0}, {"num_classes": 10, "in_channels": 0}])
def test_no_classes_or_no_channels_are_refused(sizes):
    with pytest.raises(ValueError, match="must be 1 or more"):
        build_model("cnn_3_4", **sizes)


def test_our_own_nets_have_no_published_weights():
    with pytest.raises(ValueError, match="give your own checkpoint"):
        build_model("resnet20", num_classes=10, pretrained=True)


@pytest.mark.conformance
@pytest.mark.parametrize(
    ("name", "size", "dimension"),
    [
        ("resnet18", 32, 512),
        ("mobilenet_v3_small", 32, 1024),
        ("vit_b_16", 224, 768),
        ("densenet121", 32, 1024),
    ],
)
def test_torchvisions_nets_are_split_at_their_last_linear_layer(name, size, dimension):
    model = build(f"torchvision:{name}", num_classes=6, in_channels=1).eval()
    with torch.no_grad():
        images = torch.randn(1, 1, size, size)
        feature, logits = model.features(images), model(images)
    assert feature.shape == (1, dimension) == (1, model.head.in_features)
    assert logits.shape == (1, 6)
    assert torch.equal(logits, model.head(feature))
    assert model.feature_maps(images).maps == ()


def test_a_torchvision_net_answers_as_torchvision_has_it():
    from torchvision import models

    torch.manual_seed(3)
    theirs = models.get_model("resnet18", weights=None).eval()
    torch.manual_seed(3)
    ours = build_model("torchvision:resnet18", num_classes=1000).eval()
    images = torch.randn(2, 3, 32, 32)
    with torch.no_grad():
        assert relative_error(ours(images), theirs(images)) < 1e-6


def test_torchvision_nets_that_cannot_be_split_are_refused():
    with pytest.raises(ValueError, match="does not end in a single linear layer"):
        build_model("torchvision:squeezenet1_1", num_classes=10)
    with pytest.raises(ValueError, match="did you mean 'torchvision:resnet18'"):
        build_model("torchvision:resnet_18", num_classes=10)


def test_published_weights_that_cannot_be_fetched_are_a_clear_error(monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    monkeypatch.setattr("torch.hub.download_url_to_file", _no_network)
    with pytest.raises(ValueError, match=r"could not be downloaded .*leave out --pretrained"):
        build_model("torchvision:resnet18", num_classes=10, pretrained=True)
    with pytest.raises(ValueError, match="3 input channels"):
        build_model("torchvision:resnet18", num_classes=10, in_channels=1, pretrained=True)


def _no_network(*_args, **_options):
    raise OSError("no route to host")


def test_without_timm_its_nets_say_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    assert check_model_name("timm:vit_tiny_patch16_224") == "timm:vit_tiny_patch16_224"
    with pytest.raises(ValueError, match="pip install timm"):
        build_model("timm:vit_tiny_patch16_224", num_classes=10)


@pytest.mark.conformance
@pytest.mark.parametrize(
    ("name", "size"), [("resnet18", 32), ("mobilenetv3_small_050", 32), ("vit_tiny_patch16_224", 224)]
)
def test_timms_nets_are_split_by_timms_own_interface(name, size):
    model = build(f"timm:{name}", num_classes=4, in_channels=2).eval()
    images = torch.randn(3, 2, size, size)
    with torch.no_grad():
        assert torch.equal(model(images), model.network(images))
        assert torch.equal(model.head(model.features(images)), model.network(images))
    assert model.features(images).shape == (3, model.head.in_features)


def test_timms_nets_that_cannot_be_split_are_refused():
    with pytest.raises(ValueError, match="Conv2d, not in a linear layer"):
        build_model("timm:resnetv2_50", num_classes=4)
    with pytest.raises(ValueError, match="Did you mean 'timm:resnet18'"):
        build_model("timm:resnet_18", num_classes=4)


def test_stage_outputs_are_what_a_new_architecture_has_to_give():
    class Flat(DistillationModel):
        def __init__(self):
            super().__init__()
            self.fc = nn.Linear(4, 2)

        @property
        def head(self):
            return self.fc

        def stages(self, images):
            return StageOutputs((images,), (images,), images.flatten(1))

    images = torch.randn(3, 1, 2, 2)
    model = Flat()
    assert torch.equal(model(images), model.fc(images.flatten(1)))
    assert torch.equal(model.feature_maps(images).logits, model(images))


@pytest.mark.conformance
@pytest.mark.parametrize("name", [*CIFAR_NAMES, *CNN_EXAMPLES, "cnn_5_7"])
def test_the_width_of_a_feature_is_known_without_building_the_net(name):
    with torch.device("meta"):
        assert feature_dim(name) == build(name).head.in_features


def test_the_width_of_a_librarys_feature_is_not_known_by_name():
    assert feature_dim("torchvision:resnet18") is None
