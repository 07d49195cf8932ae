"""Networks are tried on two samples of a dataset before any work."""

from dataclasses import replace

import pytest
import torch

from tests.trainables.conftest import IMAGE_METHODS, small_config, text_config
from trainables.run import shape_check
from trainables.run.shape_check import (
    ShapeError,
    Wanted,
    check_method,
    check_network,
    check_samples,
    check_text_network,
    relatives,
)
from trainables.spec.architectures import CIFAR_NAMES
from trainables.spec.datasets import DATASETS

pytestmark = pytest.mark.study

DIGITS = DATASETS["digits"]
CIFAR = DATASETS["cifar10"]


def images_of(size: int, channels: int = 3):
    return replace(CIFAR, image_size=size, channels=channels)


@pytest.mark.parametrize("name", ["cnn_3_4", "resnet8", "vgg8", "ShuffleV2", "MobileNetV2"])
def test_nets_that_take_the_digits_pass(name):
    check_network(name, Wanted(DIGITS, 64), flag="--student")


def test_the_check_leaves_random_numbers_as_they_were():
    torch.manual_seed(3)
    expected = torch.rand(3)
    torch.manual_seed(3)
    shape_check._problem.cache_clear()
    check_network("resnet14", Wanted(DIGITS), flag="--student")
    check_method(small_config(method="fitnet", student="resnet8", teacher="resnet14"), DIGITS, flag="--method")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    ("name", "info", "says"),
    [
        ("vgg19", images_of(4), r"images of cifar10, 3 x 4 x 4: its maps shrink to nothing.* fits: --teacher"),
        ("cnn_8_16", images_of(2, 1), r"its feature has shape \(2, 16\), and its last layer takes \(2, 64\)"),
        ("torchvision:densenet121", DIGITS, r"maps shrink to nothing .* fits: --teacher torchvision:resnet18"),
        ("timm:vit_tiny_patch16_224", CIFAR, r"takes images of 224 pixels alone .*: --teacher timm:resnet18"),
        ("torchvision:resnet81", CIFAR, r"no classifier 'resnet81'; did you mean 'torchvision:resnet18'\?"),
        ("timm:resnet18x", CIFAR, r"Did you mean 'timm:resnet18"),
        ("torchvision:fasterrcnn_resnet50_fpn", CIFAR, r"no classifier 'fasterrcnn_resnet50_fpn'"),
        ("torchvision:fcn_resnet50", CIFAR, r"no classifier 'fcn_resnet50'"),
        ("torchvision:squeezenet1_1", CIFAR, r"does not end in a single linear layer.*--teacher torchvision:resnet18"),
        ("torchvision:googlenet", CIFAR, r"does not end in a single linear layer.*--teacher torchvision:resnet18"),
    ],
)  # fmt: skip
@pytest.mark.filterwarnings("ignore")
def test_what_does_not_fit_is_refused_with_the_reason_and_what_fits(name, info, says):
    with pytest.raises(ShapeError, match=says) as refused:
        check_network(name, Wanted(info), flag="--teacher")
    assert str(refused.value).startswith(f"--teacher {name}: ")
    assert "\n" not in str(refused.value)


def test_what_is_suggested_passes_the_same_check():
    with pytest.raises(ShapeError) as refused:
        check_network("vgg8", Wanted(images_of(4), 64), flag="--student")
    suggested = str(refused.value).rpartition("--student ")[2]
    check_network(suggested, Wanted(images_of(4), 64), flag="--student")


def test_the_nearest_of_a_family_come_first():
    assert list(relatives("vgg13"))[:4] == ["vgg11", "vgg8", "vgg16", "vgg19"]
    assert next(relatives("torchvision:vit_b_16")) == "torchvision:resnet18"
    assert next(relatives("cnn_5_6")) == "cnn_3_4"
    for name in CIFAR_NAMES:
        assert name not in list(relatives(name))
        assert len(set(relatives(name))) == len(list(relatives(name)))


def test_batches_of_one_are_refused_where_maps_have_one_position_and_pass_elsewhere():
    check_network("cnn_3_4", Wanted(DIGITS, 1), flag="--student")
    with pytest.raises(ShapeError, match=r"BatchNorm needs two samples.*give --set batch_size=2"):
        check_network("vgg8", Wanted(DIGITS, 1), flag="--student")
    check_network("vgg8", Wanted(DIGITS, 1, trains=False), flag="--teacher", given=True)


def test_norms_that_workers_cannot_share_are_refused():
    check_network("timm:efficientnet_b0", Wanted(CIFAR), flag="--student")
    with pytest.raises(ShapeError, match=r"BatchNormAct2d cannot normalise over several workers: leave out --workers"):
        check_network("timm:efficientnet_b0", Wanted(CIFAR, shares_norms=True), flag="--student")
    check_network("resnet8", Wanted(CIFAR, shares_norms=True), flag="--student")


def test_networks_that_no_machine_here_holds_are_refused_before_they_are_built():
    with pytest.raises(ShapeError, match=r"some 900 million parameters; networks of up to 500 fit.*--student cnn_3_4"):
        check_network("cnn_9999_9999", Wanted(DIGITS), flag="--student")
    with pytest.raises(ShapeError, match="--teacher bert_99_9984: it has some 118,"):
        check_text_network("bert_99_9984", "", DATASETS["glue:sst2"], layers="skip", flag="--teacher")


def test_one_training_sample_is_refused():
    check_samples(DIGITS, 64)
    with pytest.raises(ShapeError, match="--dataset digits: the train split has 1 sample"):
        check_samples(replace(DIGITS, split_sizes=(1, 1, 1)), 64)


@pytest.mark.conformance
@pytest.mark.parametrize("method", IMAGE_METHODS)
def test_every_method_passes_on_the_digits(method):
    check_method(small_config(method=method), DIGITS, flag="--method")


def test_a_method_whose_maps_do_not_go_together_is_refused():
    """On 9 pixels, resnet8 has maps of 9, 5 and 3 pixels, while the map of cnn_3_4 that must be matched has 9."""
    config = small_config(method="sftn", student="cnn_3_4", teacher="resnet8", dataset="cifar10")
    with pytest.raises(
        ShapeError, match=r"--method sftn cannot match .*cifar10, 3 x 9 x 9: the teacher's maps of 5 × 5"
    ):
        check_method(config, images_of(9), flag="--method")


def test_language_models_pass_and_what_cannot_be_matched_is_refused(tmp_path):
    info = DATASETS["glue:sst2"]
    check_text_network("bert_2_32", "bert_2_32", info, layers="skip", flag="--student")
    check_text_network("bert:1", "bert_2_32", info, layers="skip", flag="--student")
    with pytest.raises(ShapeError, match=r"--student bert:3: .*more than its teacher's 2"):
        check_text_network("bert:3", "bert_2_32", info, layers="skip", flag="--student")
    for method in ("pkd", "pea_kd", "kd"):
        check_method(text_config(method=method), info, flag="--method")
    # The width of a model in a folder is not part of the name.
    (tmp_path / "config.json").write_text(
        '{"model_type": "bert", "hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2, '
        '"intermediate_size": 64, "vocab_size": 99}'
    )
    check_text_network(str(tmp_path), "bert_2_32", info, layers="skip", flag="--student")
    config = text_config(method="pkd", student=str(tmp_path))
    with pytest.raises(ShapeError, match=r"--method pkd cannot match .*states of equal width"):
        check_method(config, info, flag="--method")
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "config.json").write_text('{"model_type": "bert", "hidden_size": 65, "num_attention_heads": 2}')
    with pytest.raises(ShapeError, match=r"--teacher .*broken: .*65"):
        check_text_network(str(broken), "bert_2_32", info, layers="skip", flag="--teacher")
