"""Student-friendly training of a teacher: losses and branches, and the resulting files and digests."""

import json

import pytest
import torch
from scipy.special import log_softmax, softmax
from torch import nn

from tests.trainables.conftest import small_config
from trainables.costs.epoch import run_epoch
from trainables.losses.parts import StepOutputs
from trainables.methods.method import PartsSetting
from trainables.methods.sftn import FRIENDLY_TEACHER, Branches, branch_points, friendly_teacher_losses
from trainables.models import build_model
from trainables.run.checkpoint import load_checkpoint, save_checkpoint
from trainables.run.run import DistillationRun
from trainables.spec.teacher_trial import teacher_trial
from trainables.storage.tensors import read_tensors
from trainables.teacher.files import TeacherFileError, ensure_teacher, load_teacher, teacher_digest

pytestmark = pytest.mark.study

PAIRS = [("resnet32x4", "resnet8x4"), ("wrn_16_2", "ShuffleV1"), ("resnet14", "ShuffleV2"), ("vgg13", "MobileNetV2"),
         ("ResNet50", "vgg8"), ("cnn_8_16", "resnet8"), ("resnet8", "cnn_3_4"), ("wrn_16_2", "wrn_16_1"),
         ("resnet14a", "resnet8a")]  # fmt: skip


def config(**changes):
    return small_config(**({"method": "sftn", "teacher_epochs": 2} | changes))


def setting_of(teacher: str, size: int = 32) -> PartsSetting:
    """Return the setting that a method gets from the maps of this teacher."""
    model = build_model(teacher, num_classes=10, in_channels=3).eval()
    with torch.no_grad():
        maps = model.stages(torch.zeros(1, 3, size, size)).maps
    shapes = tuple(tuple(each.shape[1:]) for each in maps)
    return PartsSetting(1, 0, torch.zeros(1), student_maps=shapes, image=(3, size, size), num_classes=10)


def test_branches_begin_after_every_stage_but_the_last_counted_from_the_end():
    assert branch_points(4, 4) == [(1, 1), (2, 2)]
    assert branch_points(5, 4) == [(2, 1), (3, 2)]
    assert branch_points(4, 5) == [(1, 2), (2, 3)]
    assert branch_points(2, 2) == [(0, 0)]
    assert branch_points(4, 2) == [(2, 0)]


@pytest.mark.study
@pytest.mark.parametrize(("teacher", "student"), PAIRS)
def test_a_branch_ends_as_the_student_does_and_has_nothing_that_does_not_learn(teacher, student):
    setting = setting_of(teacher)
    branches = Branches(student, setting)
    model = build_model(teacher, num_classes=10, in_channels=3)
    said = branches(model.stages(torch.randn(4, 3, 32, 32)).maps)
    stages = len(setting_of(student).student_maps)
    assert [each.shape for each in said] == [(4, 10)] * len(branch_points(len(setting.student_maps), stages))
    sum(each.square().sum() for each in said).backward()
    assert [name for name, p in branches.named_parameters() if p.grad is None] == []
    reached = [name for name, p in model.named_parameters() if p.grad is not None]
    assert reached
    assert not any(name.startswith(("fc", "linear", "classifier")) for name in reached)
    whole = sum(p.numel() for p in build_model(student, num_classes=10).parameters())
    for branch in branches:
        assert sum(p.numel() for p in branch.tail.parameters()) < whole


def test_the_losses_are_what_numpy_says():
    generator = torch.Generator().manual_seed(0)
    labels = torch.tensor([0, 2, 1])
    teacher, *said = (torch.randn(3, 4, dtype=torch.float64, generator=generator, requires_grad=True) for _ in range(3))

    class Given(Branches):
        def __init__(self):
            nn.Module.__init__(self)

        def forward(self, maps):
            return said

    outputs = StepOutputs(teacher, teacher, parts=Given(), student_maps=())
    weights = {"sftn_ce_weight": 0.5, "sftn_kl_weight": 3.0, "sftn_branch_ce_weight": 0.7}
    parts = friendly_teacher_losses(outputs, labels, sftn_temperature=2.0, **weights)

    def ce(z):
        return -log_softmax(z.detach().numpy(), axis=1)[range(3), labels].mean()

    def kl(z):
        t, s = teacher.detach().numpy() / 2, z.detach().numpy() / 2
        return 4 * (softmax(t, axis=1) * (log_softmax(t, axis=1) - log_softmax(s, axis=1))).sum(axis=1).mean()

    divergence = (kl(said[0]) + kl(said[1])) / 2
    assert parts.ce.item() == pytest.approx(ce(teacher))
    assert parts.kd.item() == pytest.approx(divergence)
    expected = 0.5 * ce(teacher) + 3.0 * divergence + 0.7 * (ce(said[0]) + ce(said[1])) / 2
    assert parts.total.item() == pytest.approx(expected)
    parts.kd.backward()
    assert all(each.grad.abs().max() > 0 for each in (teacher, *said))


def test_in_its_training_the_teacher_and_its_branches_learn_and_nobody_else(digits):
    run = DistillationRun(teacher_trial(config()), digits, None, method=FRIENDLY_TEACHER)
    assert set(run.trainers) == {"student", "method"}
    assert run.student.head.in_features == build_model("cnn_8_16", num_classes=10, in_channels=1).head.in_features
    before = {who: [p.clone() for p in each.parameters.values()] for who, each in run.trainers.items()}
    measures = run_epoch(run)
    for who, each in run.trainers.items():
        assert all(not torch.equal(p, b) for p, b in zip(each.parameters.values(), before[who], strict=True))
    assert measures["train/loss"] > measures["train/loss_ce"]
    assert measures["train/loss_kd"] > 0


@pytest.mark.study
def test_with_no_weight_on_branches_it_is_the_ordinary_teachers_training_to_the_bit(digits, tmp_path):
    alone = config(sftn_kl_weight=0.0, sftn_branch_ce_weight=0.0)
    friendly = load_teacher(ensure_teacher(alone, digits, tmp_path), alone, digits)
    ordinary = small_config(method="kd", teacher_epochs=2)
    trained = load_teacher(ensure_teacher(ordinary, digits, tmp_path), ordinary, digits)
    assert friendly.digest == trained.digest


def test_a_training_that_was_stopped_goes_on_to_the_same_bits(digits, tmp_path):
    trial = teacher_trial(config(epochs=3))
    straight = DistillationRun(trial, digits, None, method=FRIENDLY_TEACHER)
    straight.train_epoch()
    save_checkpoint(straight, tmp_path)
    straight.train_epoch()
    resumed = DistillationRun(trial, digits, None, method=FRIENDLY_TEACHER)
    load_checkpoint(resumed, tmp_path)
    resumed.train_epoch()
    ours, theirs = resumed.state_dict()["tensors"], straight.state_dict()["tensors"]
    assert set(ours) == set(theirs)
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@pytest.mark.study
def test_a_friendly_teacher_is_kept_for_its_student_and_its_weights_and_for_no_other(digits, tmp_path):
    own = config()
    path = ensure_teacher(own, digits, tmp_path)
    metadata = read_tensors(path)[1]
    assert metadata["prepared_for"]["student"] == own.student
    assert metadata["prepared_for"]["sftn_kl_weight"] == 3.0
    same = [config(seed=5, data_seed=3, temperature=2.0, epochs=9), own]
    others = [config(student="cnn_4_4"), config(sftn_kl_weight=2.0), small_config(method="kd", teacher_epochs=2)]
    assert {teacher_digest(each, digits) for each in same} == {teacher_digest(own, digits)}
    assert len({teacher_digest(each, digits) for each in [own, *others]}) == 4
    for other in others:
        with pytest.raises(TeacherFileError, match="prepared_for"):
            load_teacher(path, other, digits)
    ordinary = ensure_teacher(others[-1], digits, tmp_path)
    with pytest.raises(TeacherFileError, match="prepared_for"):
        load_teacher(ordinary, own, digits)


@pytest.mark.study
def test_a_trial_says_what_its_teachers_training_took(digits, tmp_path):
    path = ensure_teacher(config(), digits, tmp_path)
    found = load_teacher(path, config(), digits)
    assert found.training_seconds == json.loads(path.with_suffix(".cost.json").read_text())["training_seconds"] > 0
    taught = run_epoch(DistillationRun(config(), digits, found))
    assert taught["cost/teacher_training_seconds"] == found.training_seconds
    assert "cost/teacher_training_seconds" not in run_epoch(DistillationRun(config(method="ce"), digits, found))
    path.with_suffix(".cost.json").unlink()
    assert load_teacher(path, config(), digits).training_seconds is None


def test_its_training_is_the_teachers_for_every_trial_of_the_student(digits):
    trial = teacher_trial(config(seed=3, student_learning_rate=0.2))
    assert trial == teacher_trial(config())
    assert (trial.method, trial.student, trial.teacher, trial.epochs) == ("ce", "cnn_8_16", "cnn_3_4", 2)


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"teacher_recipe": "checkpoint", "teacher_digest": "0" * 16, "teacher_epochs": 0}, "it cannot be given"),
        ({"student": "torchvision:resnet18"}, "student 'torchvision:resnet18' gives none"),
    ],
)
def test_what_a_friendly_teacher_cannot_be_trained_for_is_refused(changes, says):
    with pytest.raises(ValueError, match=says):
        small_config(method="sftn", **changes)
