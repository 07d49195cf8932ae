"""An ensemble of teachers: mean probability, members in their own normalisation, gaps to each, stored outputs."""

import copy
import math

import numpy as np
import pytest
import torch
from pydantic import ValidationError
from scipy.special import logsumexp, softmax

from tests.trainables.conftest import small_config, without_costs
from trainables.costs.epoch import run_epoch
from trainables.costs.ledger import count_costs
from trainables.display.numbers import NETWORK_PLACES, format_number
from trainables.losses.sharpness import sharpness, sharpness_gap
from trainables.models import CheckpointError, CheckpointInfo, build_model, save_model
from trainables.models.ensemble import MeanProbability, TeacherEnsemble
from trainables.process.randomness import seeded
from trainables.run.run import DistillationRun
from trainables.spec.architectures import ensemble_members
from trainables.spec.measures import TEACHER_GAPS
from trainables.spec.trial import TrialConfig
from trainables.teacher.files import keep_given_teacher, load_teacher, notes_on_given_teacher
from trainables.teacher.given import DataShape, read_given_teacher
from trainables.teacher.given_ensemble import join_given_teachers
from trainables.teacher_outputs.frozen import FrozenTeacher
from trainables.teacher_outputs.store import StoredTeacherOutputs, TeacherOutputsStore

SHAPE = DataShape("digits", 10, 1, 8)
NAMES, NORMALISATIONS = ("cnn_4_6", "cnn_3_8"), (((0.3,), (0.4,)), ((0.1,), (0.7,)))


def test_the_prediction_is_the_mean_probability_and_as_sharp_as_its_members_on_average():
    random = np.random.default_rng(0)
    logits = 4 * random.standard_normal((5, 3, 7))
    head = MeanProbability(3, 7)
    found = head(torch.tensor(logits.reshape(5, 21)))
    np.testing.assert_allclose(torch.softmax(found, 1).numpy(), softmax(logits, axis=2).mean(axis=1), rtol=1e-12)
    np.testing.assert_allclose(sharpness(found).numpy(), logsumexp(logits, axis=2).mean(axis=1), rtol=1e-12)
    assert not head.state_dict()
    assert (head.in_features, head.out_features) == (21, 7)


def test_two_certain_members_that_disagree_give_a_half_each():
    # Computed by hand: both predict their class with probability 1.
    logits = torch.tensor([[1000.0, 0.0, 0.0, 1000.0]])
    found = MeanProbability(2, 2)(logits)
    torch.testing.assert_close(found, torch.full((1, 2), 1000 + math.log(0.5)))


@pytest.fixture
def members(tmp_path):
    paths = []
    for seed, (name, (mean, std)) in enumerate(zip(NAMES, NORMALISATIONS, strict=True)):
        with seeded(seed):
            model = build_model(name, num_classes=10, in_channels=1)
        paths.append(tmp_path / f"{name}.safetensors")
        save_model(model, paths[-1], metadata=CheckpointInfo(name, 10, 1, mean, std, "feed").to_metadata())
    return paths


@pytest.fixture
def given(members):
    return join_given_teachers([read_given_teacher(path, SHAPE) for path in members], members, SHAPE)


def config_of(given, **changes):
    values = {"teacher": given.identity["architecture"], "teacher_digest": given.digest, "teacher_epochs": 0}
    return small_config(**{**values, "teacher_recipe": "checkpoint", "epochs": 2, **changes})


@pytest.fixture
def ensemble(given, digits, tmp_path):
    return load_teacher(keep_given_teacher(given, tmp_path), config_of(given), digits)


def test_each_member_takes_the_studys_images_in_its_own_normalisation(ensemble, members, given, digits, tmp_path):
    pixels = torch.rand(6, 1, 8, 8)
    ours = ensemble((pixels - digits.mean[0]) / digits.std[0])
    for number, (path, (mean, std)) in enumerate(zip(members, NORMALISATIONS, strict=True)):
        single = read_given_teacher(path, SHAPE)
        model = build_model(single.identity["architecture"], num_classes=10, in_channels=1).eval()
        model.load_state_dict(single.weights)
        expected = model((pixels - mean[0]) / std[0])
        torch.testing.assert_close(ours.feature[:, 10 * number : 10 * (number + 1)], expected, rtol=1e-4, atol=1e-4)
    assert given.data_digest == "feed"
    assert given.identity["architecture"] == "cnn_4_6+cnn_3_8"


def test_the_order_of_the_members_is_part_of_the_teacher_and_a_member_twice_is_refused(members, given):
    teachers = [read_given_teacher(path, SHAPE) for path in members]
    assert join_given_teachers(teachers, members, SHAPE).digest == given.digest
    assert join_given_teachers(teachers[::-1], members[::-1], SHAPE).digest != given.digest
    with pytest.raises(CheckpointError, match="contain the same teacher: name it once"):
        join_given_teachers([teachers[0], *teachers], [members[0], *members], SHAPE)


def test_a_trial_learns_from_stored_outputs_alone_and_records_the_gap_to_each_member(given, ensemble, digits, tmp_path):
    config = config_of(given, method="kd")
    live = run_epoch(DistillationRun(config, digits, copy.deepcopy(ensemble)))
    store = TeacherOutputsStore(
        tmp_path, ensemble, digits, architecture=config.teacher, augmentation="views", dtype="float32"
    )
    for _ in range(2):
        run = DistillationRun(config, digits, ensemble, teacher_outputs=StoredTeacherOutputs(store))
        stored = run_epoch(run)
    assert stored["cost/teacher_forwards"] == 0
    assert stored["train/loss"] == pytest.approx(live["train/loss"], rel=2e-3)
    gaps = [stored[name] for name in TEACHER_GAPS if name in stored]
    assert len(gaps) == 2
    assert np.mean(gaps) == pytest.approx(stored["val/sharpness_gap_frozen"], abs=1e-5)
    teacher = run.predictor.of_frozen_teacher(run.teacher_outputs)
    student = run.predictor.of_student(digits.validation)
    for number, gap in enumerate(gaps):
        own = teacher.feature[:, 10 * number : 10 * (number + 1)]
        assert gap == pytest.approx(sharpness_gap(own.double(), student.double()).item(), abs=1e-6)
    assert count_costs(run).flops["teacher"].total == 0
    alone = FrozenTeacher(copy.deepcopy(ensemble.model.members[0]))
    single = run_epoch(DistillationRun(small_config(method="kd"), digits, alone))
    assert not set(TEACHER_GAPS) & set(single)


def test_the_accuracy_of_each_member_is_told(given, ensemble, digits, tmp_path):
    note, *_ = notes_on_given_teacher(keep_given_teacher(given, tmp_path), config_of(given), digits)
    split = digits.validation
    run = DistillationRun(config_of(given, method="kd"), digits, ensemble)
    outputs = run.predictor.of_frozen_teacher(run.teacher_outputs)
    members = outputs.feature.unflatten(1, (2, 10)).unbind(1)
    shares = [(each.argmax(1) == split.labels).double().mean().item() for each in (outputs.logits, *members)]
    whole, first, second = (format_number(each, NETWORK_PLACES) for each in shares)
    assert note == (
        f"the teacher has accuracy {whole} on the validation split (n = 360), its members have {first} and {second}"
    )


def test_an_adapter_learns_on_an_ensemble(given, ensemble, digits):
    for kind in ("serial", "parallel", "logit"):
        run = DistillationRun(config_of(given, adapter_kind=kind, adapter_init="default"), digits, ensemble)
        assert run_epoch(run)["train/adapter_shift"] > 0
    first, second = (DistillationRun(config_of(given), digits, copy.deepcopy(ensemble)) for _ in range(2))
    assert without_costs(run_epoch(first)) == without_costs(run_epoch(second))


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ({"teacher_digest": ""}, "is an ensemble of trained teachers, which --teacher-checkpoint A,B,... gives"),
        ({"teacher": "+".join(["cnn_3_4"] * 6)}, "has 6 networks; an ensemble has at most 5"),
        ({"teacher": "cnn_3_4+resnet21"}, "unknown model 'resnet21'"),
        ({"student": "cnn_3_4+cnn_3_4"}, "unknown model 'cnn_3_4"),
        ({"adapter_kind": "feature"}, "adapter_kind 'feature' applies the last layer of a single network"),
        *(({"method": name}, "takes one network as its teacher") for name in ("at", "crd", "dml", "full_teacher")),
        *(({"method": name}, "takes one network as its teacher") for name in ("pkt", "rkd", "sftn", "kdcl", "vid")),
    ],
)
def test_what_an_ensemble_cannot_be_is_refused(values, says):
    base = {"teacher": "cnn_3_4+cnn_3_4", "teacher_digest": "0" * 16, "teacher_recipe": "checkpoint"}
    with pytest.raises(ValidationError) as refused:
        TrialConfig(**{**base, **values})
    assert says in str(refused.value)


def test_a_path_with_a_plus_is_no_ensemble():
    assert ensemble_members("cnn_3_4+torchvision:resnet18") == ("cnn_3_4", "torchvision:resnet18")
    for name in ("resnet20", "/models/a+b", "nets+more.py:make", "./a+b/net.py:make"):
        assert ensemble_members(name) == ()


def test_a_fresh_ensemble_normalises_nothing():
    model = build_model("cnn_3_4+cnn_3_4", num_classes=3, in_channels=2).eval()
    assert isinstance(model, TeacherEnsemble)
    images = torch.rand(2, 2, 8, 8)
    both = torch.cat([member(images) for member in model.members], dim=1)
    assert torch.equal(model.stages(images).feature, both)
