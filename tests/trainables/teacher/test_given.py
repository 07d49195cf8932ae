import json

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from tests.trainables.models.golden import weight
from trainables.data.views import Normaliser
from trainables.models import CheckpointError, CheckpointInfo, build_model, save_model
from trainables.spec.trial import TrialConfig
from trainables.storage.tensors import tensors_digest
from trainables.teacher.files import (
    TeacherFileError,
    beats_guessing,
    is_kept,
    keep_given_teacher,
    load_teacher,
    notes_on_given_teacher,
    stored_path,
)
from trainables.teacher.given import DataShape, Normalisation, read_given_teacher, usual_normalisation
from trainables.teacher_outputs.frozen import FrozenTeacher, Renormalisation

pytestmark = pytest.mark.study

DIGITS = DataShape("digits", 10, 1, 8)
CIFAR = DataShape("cifar100", 100, 3, 32)
GREY = Normalisation((0.3,), (0.4,))


@pytest.fixture
def network():
    torch.manual_seed(0)
    net = build_model("cnn_4_6", num_classes=10, in_channels=1)
    net(torch.randn(16, 1, 8, 8))
    return net


@pytest.fixture
def our_checkpoint(network, tmp_path):
    path = tmp_path / "teacher.safetensors"
    save_model(network, path, metadata=CheckpointInfo("cnn_4_6", 10, 1, *GREY, "feed").to_metadata())
    return path


@pytest.fixture
def foreign(network, tmp_path):
    path = tmp_path / "ckpt_epoch_240.pth"
    torch.save({"epoch": 240, "model": {f"module.{k}": v for k, v in network.state_dict().items()}}, path)
    return path


def test_a_checkpoint_of_ours_says_what_it_is(our_checkpoint, network):
    teacher = read_given_teacher(our_checkpoint, DIGITS)
    assert teacher.identity["architecture"] == "cnn_4_6"
    assert teacher.normalisation == GREY
    assert teacher.identity["weights"] == tensors_digest(network.state_dict())
    assert teacher.data_digest == "feed"
    assert teacher.digest == read_given_teacher(our_checkpoint, DIGITS, architecture="cnn_4_6").digest


def test_a_foreign_checkpoint_with_the_same_in_it_is_the_same_teacher(our_checkpoint, foreign, network, tmp_path):
    digest = read_given_teacher(our_checkpoint, DIGITS).digest
    assert read_given_teacher(foreign, DIGITS, architecture="cnn_4_6", normalisation=GREY).digest == digest
    bare = tmp_path / "bare.safetensors"
    save_file(network.state_dict(), bare)
    assert read_given_teacher(bare, DIGITS, architecture="cnn_4_6", normalisation=GREY).digest == digest
    other = read_given_teacher(foreign, DIGITS, architecture="cnn_4_6", normalisation=Normalisation((0.0,), (1.0,)))
    assert other.digest != digest


def test_of_a_distillers_checkpoint_the_teacher_is_taken_and_of_one_without_its_student(network, tmp_path):
    small = build_model("cnn_2_2", num_classes=10, in_channels=1)
    parts = {f"teacher.{k}": v for k, v in network.state_dict().items()}
    students = {f"student.{k}": v for k, v in small.state_dict().items()}
    torch.save({"model": parts | students}, tmp_path / "both.pth")
    torch.save({"model": students}, tmp_path / "vanilla.pth")
    both = read_given_teacher(tmp_path / "both.pth", DIGITS, architecture="cnn_4_6", normalisation=GREY)
    assert both.identity["weights"] == tensors_digest(network.state_dict())
    alone = read_given_teacher(tmp_path / "vanilla.pth", DIGITS, architecture="cnn_2_2", normalisation=GREY)
    assert alone.identity["weights"] == tensors_digest(small.state_dict())


@pytest.mark.parametrize(
    ("shape", "asked", "says"),
    [
        (DataShape("digits", 12, 1, 8), {}, "number of classes is 10, but 12 is needed for digits"),
        (DataShape("digits", 10, 3, 8), {}, "number of image channels is 1, but 3 is needed"),
        (DIGITS, {"architecture": "cnn_9_9"}, "is 'cnn_4_6', but 'cnn_9_9' is needed: leave out --teacher, or give"),
        (
            DIGITS,
            {"normalisation": GREY},
            "contains the normalisation of its training images: leave out --teacher-normalisation",
        ),
    ],
)
def test_a_checkpoint_of_ours_that_does_not_fit_is_refused(our_checkpoint, shape, asked, says):
    with pytest.raises(CheckpointError, match=says):
        read_given_teacher(our_checkpoint, shape, **asked)


@pytest.mark.parametrize(
    ("shape", "asked", "says"),
    [
        (DIGITS, {}, "does not state its architecture"),
        (DIGITS, {"architecture": "cnn_4_6"}, "digits has no usual one"),
        (DIGITS, {"architecture": "cnn_4_6", "normalisation": Normalisation((0.1, 0.2), (0.3,))}, "2 means and 1"),
        (DIGITS, {"architecture": "cnn_4_7", "normalisation": GREY}, "cnn_4_7 for digits, which has 10 classes"),
        (DataShape("digits", 12, 1, 8), {"architecture": "cnn_4_6", "normalisation": GREY}, "10 classes instead of 12"),
    ],
)
def test_a_foreign_checkpoint_that_does_not_fit_is_refused(foreign, shape, asked, says):
    with pytest.raises(CheckpointError, match=says):
        read_given_teacher(foreign, shape, **asked)


def test_weights_that_are_no_numbers_and_files_that_are_no_checkpoints_are_refused(network, tmp_path):
    network.head.bias.data[0] = float("nan")
    torch.save(network.state_dict(), tmp_path / "diverged.pth")
    (tmp_path / "text.pth").write_text("hello")
    asked = {"architecture": "cnn_4_6", "normalisation": GREY}
    for name, says in (
        ("diverged.pth", "NaN weights in fc.bias"),
        ("text.pth", "damaged"),
        ("gone.pth", "no checkpoint"),
    ):
        with pytest.raises(CheckpointError, match=says):
            read_given_teacher(tmp_path / name, DIGITS, **asked)


def test_images_that_a_network_cannot_take_are_refused(tmp_path):
    path = tmp_path / "vgg.pth"
    torch.save(build_model("vgg8", num_classes=10, in_channels=1).state_dict(), path)
    with pytest.raises(CheckpointError, match="cannot take the images of tiny, 1 x 4 x 4"):
        read_given_teacher(path, DataShape("tiny", 10, 1, 4), architecture="vgg8", normalisation=GREY)


def test_the_usual_normalisation_of_a_dataset_is_assumed_where_there_is_one():
    assert usual_normalisation("cifar100", "resnet56").mean == (0.5071, 0.4867, 0.4408)
    assert usual_normalisation("image_folder:/x", "torchvision:resnet18").std == (0.229, 0.224, 0.225)
    assert usual_normalisation("digits", "cnn_4_6") is None


@pytest.mark.parametrize("depth", [20, 56])
def test_a_published_cifar10_net_is_given_by_its_name_with_the_normalisation_it_was_trained_with(depth, golden_root):
    (path,) = (golden_root / "option_a").glob(f"resnet{depth}-*.th")
    shape = DataShape("cifar10", 10, 3, 32)
    given = read_given_teacher(path, shape, architecture=f"resnet{depth}a")
    assert given.normalisation == ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
    with pytest.raises(CheckpointError, match=f"the weights fit --teacher resnet{depth}a"):
        read_given_teacher(path, shape, architecture=f"resnet{depth}")
    with pytest.raises(CheckpointError, match=f"name it .*fit --teacher resnet{depth}a"):
        read_given_teacher(path, shape)
    with pytest.raises(CheckpointError, match="10 classes instead of 100"):
        read_given_teacher(path, CIFAR, architecture=f"resnet{depth}a")


@pytest.mark.parametrize(
    ("mean", "std"),
    [((0.3,), (float("nan"),)), ((float("inf"),), (0.4,)), ((0.3,), (0.0,)), ((0.3, 0.3), (0.4, 0.4)), ((), ())],
)
def test_a_checkpoint_of_ours_with_an_impossible_normalisation_is_refused(network, mean, std, tmp_path):
    path = tmp_path / "teacher.safetensors"
    save_model(network, path, metadata=CheckpointInfo("cnn_4_6", 10, 1, mean, std, "feed").to_metadata())
    with pytest.raises(CheckpointError, match="normalisation"):
        read_given_teacher(path, DIGITS)


def test_a_net_with_impossible_statistics_is_refused(network, tmp_path):
    network.bn1.running_var.fill_(-1.0)
    torch.save(network.state_dict(), tmp_path / "net.pth")
    with pytest.raises(CheckpointError, match="logits are not finite"):
        read_given_teacher(tmp_path / "net.pth", DIGITS, architecture="cnn_4_6", normalisation=GREY)


@pytest.mark.parametrize("channels", [1, 3])
def test_the_weights_of_a_torchvision_net_name_it(channels, tmp_path):
    path = tmp_path / "net.pth"
    model = build_model("torchvision:resnet18", num_classes=10, in_channels=channels)
    torch.save({"model": model.backbone.state_dict()
                | {"fc.weight": torch.zeros(10, 512), "fc.bias": torch.zeros(10)}}, path)  # fmt: skip
    shape = DataShape("cifar10", 10, channels, 32)
    normalisation = Normalisation((0.5,) * channels, (0.25,) * channels)
    with pytest.raises(CheckpointError, match="the weights fit --teacher torchvision:resnet18"):
        read_given_teacher(path, shape, architecture="resnet20", normalisation=normalisation)
    assert (
        read_given_teacher(path, shape, architecture="torchvision:resnet18", normalisation=normalisation).taken.place
        == "model"
    )


def config_of(teacher):
    return TrialConfig(teacher="cnn_4_6", teacher_recipe="checkpoint", teacher_digest=teacher.digest)


def test_a_kept_teacher_is_loaded_by_its_digest_and_takes_the_studys_images(our_checkpoint, network, digits, tmp_path):
    teacher = read_given_teacher(our_checkpoint, DIGITS)
    path = keep_given_teacher(teacher, tmp_path / "teachers")
    assert path == stored_path(tmp_path / "teachers", teacher.digest)
    assert is_kept(tmp_path / "teachers", teacher.digest)
    frozen = load_teacher(path, config_of(teacher), digits)
    cpu, images = torch.device("cpu"), digits.validation.images
    with torch.no_grad():
        expected = network.eval()(Normaliser(*GREY, cpu)(images))
    found = frozen(Normaliser(digits.mean, digits.std, cpu)(images)).logits
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)


def test_another_or_a_damaged_copy_is_refused_and_not_taken_for_kept(our_checkpoint, digits, tmp_path):
    teacher = read_given_teacher(our_checkpoint, DIGITS)
    path = keep_given_teacher(teacher, tmp_path)
    other = TrialConfig(teacher="cnn_4_6", teacher_recipe="checkpoint", teacher_digest="0" * 16)
    with pytest.raises(TeacherFileError, match=f"digest is {teacher.digest}, expected 0000"):
        load_teacher(path, other, digits)
    assert not is_kept(tmp_path, "0" * 16)
    content = bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    assert not is_kept(tmp_path, teacher.digest)
    with pytest.raises(TeacherFileError, match=r"damaged.*copied again from the checkpoint"):
        load_teacher(path, config_of(teacher), digits)


def test_notes_tell_a_teacher_that_guesses_and_data_that_nobody_knows(our_checkpoint, foreign, digits, tmp_path):
    for path, asked, says in (
        (our_checkpoint, {}, "trained on other data"),
        (foreign, {"architecture": "cnn_4_6", "normalisation": GREY}, "the training data of the teacher are unknown"),
    ):
        teacher = read_given_teacher(path, DIGITS, **asked)
        notes = notes_on_given_teacher(keep_given_teacher(teacher, tmp_path), config_of(teacher), digits)
        assert "on the validation split (n = 360)" in notes[0]
        assert any("little better than always predicting the most frequent class" in note for note in notes)
        assert says in notes[-1]


@pytest.mark.parametrize(
    ("accuracy", "labels", "beats"),
    [
        (0.915, [0, 1] * 50, True),  # two classes, where twice chance would be 1
        (0.53, [0, 1] * 50, False),
        (0.9, [0] * 90 + [1] * 10, False),  # always the most common class
        (0.03, list(range(100)), False),
        (0.3, list(range(100)), True),
    ],
)
def test_a_teacher_that_guesses_is_told_from_one_that_knows(accuracy, labels, beats):
    assert beats_guessing(accuracy, torch.tensor(labels)) is beats


@pytest.mark.parametrize("name", ["resnet20", "wrn_40_2"])
def test_a_teacher_of_the_literature_answers_as_it_should_under_another_normalisation(name, golden_root, tmp_path):
    golden = json.loads((golden_root / "cifar_models.json").read_text())[name]
    path = tmp_path / f"{name}.pth"
    torch.save({"epoch": 240, "model": {k: weight(k, s) for k, s in golden["keys"].items()}}, path)
    given = read_given_teacher(path, CIFAR, architecture=name)
    assert given.normalisation == usual_normalisation("cifar100", name)
    model = build_model(name, num_classes=100)
    model.load_state_dict(given.weights)
    data = Normalisation((0.5, 0.48, 0.45), (0.25, 0.24, 0.27))
    frozen = FrozenTeacher(model, renormalise=Renormalisation.between(*data, *given.normalisation))

    # The golden outputs belong to inputs in the teacher's normalisation. The trial gets the same images in the study's.
    inputs = torch.tensor(np.random.default_rng(7).standard_normal((4, 3, 32, 32)))
    mean, std, own_mean, own_std = (torch.tensor(v).view(1, 3, 1, 1) for v in (*data, *given.normalisation))
    images = ((inputs * own_std + own_mean - mean) / std).float()
    for found, answer in zip(frozen(images)[:2], (golden["feature"], golden["logits"]), strict=True):
        expected = torch.tensor(answer)
        assert ((found - expected).norm() / expected.norm()).item() < 1e-4
