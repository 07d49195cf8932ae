"""Effect of two classes on losses, and warnings of new studies before any work."""

from functools import partial

import pytest
import torch
import typer
from PIL import Image

from study.cli.data_preview import data_warnings
from study.cli.preview import describe_plan
from study.launch import main as launch_main
from study.plan.methods import choose_methods
from study.plan.notes import left_out
from study.plan.resolve import load_plan
from study.plan.two_classes import check_two_classes, class_count, two_class_refusal
from tests.study.factories import compare
from trainables.losses.labelled import nkd_loss, pld_loss, rld_loss
from trainables.losses.logits import atkd_loss, dist_loss, dkd_loss, kd_loss, standardised_kd_loss
from trainables.losses.transport import wkd_loss
from trainables.process.errors import UsageError
from trainables.spec.methods import METHOD_SPECS
from trainables.spec.trial import TrialConfig

TWO = {"dataset": "glue:sst2", "epochs": 4}
TEXT_METHODS = ["kd", "dkd", "dist", "atkd"]


def gradient(loss, student, teacher):
    leaf = student.clone().requires_grad_()
    loss(leaf, teacher).backward()
    return leaf.grad


@pytest.fixture
def logits():
    generator = torch.Generator().manual_seed(0)
    return 3 * torch.randn(2, 9, 2, dtype=torch.float64, generator=generator)


LABELS = torch.arange(9) % 2


def of_others(loss, student, teacher, weight):
    """The part of a loss that is not the label's, at a weight of 8."""
    return loss(student, teacher, LABELS, **{weight: 8.0}) - loss(student, teacher, LABELS, **{weight: 0.0})


def weighted_cross_entropy(student, teacher):
    confidence = torch.softmax(teacher / 2, dim=1).gather(1, LABELS[:, None])
    return -(confidence * torch.log_softmax(student, dim=1).gather(1, LABELS[:, None])).mean()


LOST = {
    "logit_standardisation": lambda s, t: standardised_kd_loss(s, t, temperature=2.0),
    "dkd": lambda s, t: dkd_loss(s, t, LABELS, temperature=2.0, alpha=0.0, beta=8.0),
    "dist": lambda s, t: dist_loss(s, t, temperature=2.0, beta=1.0, gamma=0.0),
    "nkd": lambda s, t: of_others(partial(nkd_loss, temperature=2.0), s, t, "gamma"),
    "rld": lambda s, t: rld_loss(s, t, LABELS, temperature=2.0, alpha=0.0, beta=8.0),
    "wkd_l": lambda s, t: of_others(
        partial(wkd_loss, distances=1 - torch.eye(s.shape[1]), temperature=2.0, sharpening=1.0), s, t, "weight"
    ),
    "pld": lambda s, t: pld_loss(s, t, LABELS, temperature=2.0) - weighted_cross_entropy(s, t),
}


@pytest.mark.parametrize("method", LOST)
def test_what_is_said_to_be_lost_has_no_gradient_with_two_classes_and_one_with_three(method, logits):
    assert METHOD_SPECS[method].two_classes
    assert gradient(LOST[method], *logits).abs().max() < 1e-6
    three = torch.cat([logits, logits.flip(1)[:, :, :1]], dim=2)
    assert gradient(LOST[method], *three).abs().max() > 1e-4


def test_atkd_sees_of_two_logits_which_is_the_larger_alone(logits):
    student, teacher = logits
    scales = torch.linspace(0.1, 30, 9, dtype=torch.float64)[:, None]
    assert METHOD_SPECS["atkd"].two_classes
    for loss, same in ((atkd_loss, True), (kd_loss, False)):
        values = [loss(student, each, temperature=2.0).item() for each in (teacher, scales * teacher)]
        assert (values[0] == pytest.approx(values[1], rel=1e-6)) == same


def test_a_new_study_of_a_method_without_a_gradient_is_refused():
    with pytest.raises(UsageError) as refused:
        check_two_classes(["logit_standardisation"], "glue:sst2", flag="--method")
    assert str(refused.value) == (
        "--method: method 'logit_standardisation' learns nothing from the teacher on two classes, as in 'glue:sst2': "
        "two standardised logits are always 1 and -1, so the distillation loss has no gradient; choose kd, which is "
        "not affected"
    )
    check_two_classes(["kd"], "glue:sst2", flag="--method")
    check_two_classes(["logit_standardisation"], "digits", flag="--method")
    check_two_classes(["logit_standardisation"], "no such data", flag="--method")
    assert two_class_refusal(TrialConfig(method="logit_standardisation", dataset="glue:mnli")) is None  # three classes


def test_a_new_comparison_leaves_it_out_with_the_reason_and_refuses_it_by_name(tmp_path):
    names = [method.name for method in choose_methods(None, TWO, {})]
    assert "dkd" in names
    assert not any(name.startswith("logit_standardisation") for name in names)
    plan = compare(tmp_path, methods=None, base=TWO)
    assert ["logit_standardisation", "logit_standardisation+adapter"] in left_out(plan).values()
    assert "logit_standardisation+adapter: learns nothing from the teacher on two classes" in describe_plan(plan, [])
    with pytest.raises(
        UsageError, match="--methods logit_standardisation: method 'logit_standardisation' learns nothing"
    ):
        choose_methods(["logit_standardisation"], TWO, {})


def test_methods_that_lose_a_part_are_warned_of_and_old_studies_still_open(tmp_path):
    warnings = [
        each for each in data_warnings(compare(tmp_path, methods=TEXT_METHODS, base=TWO)) if "two classes" in each
    ]
    assert [each.split(" ")[3] for each in warnings] == ["dkd", "dist", "atkd"]
    assert warnings[0] == (
        "With two classes, dkd is incomplete: the part of the other classes (dkd_beta) is constant, because there is "
        "one other class."
    )
    assert not any("two classes" in each for each in data_warnings(compare(tmp_path, methods=["kd", "dkd"])))
    old = compare(tmp_path, methods=["kd"], base=TWO)
    fields = {"method": "logit_standardisation", "adapter": False}
    old = old.model_copy(
        update={"compared": (*old.compared, old.compared[0].model_copy(update={"name": "ls", "fields": fields}))}
    )
    old.save()
    opened = load_plan(old.directory)
    assert [method.name for method in opened.compared] == ["kd", "ls"]
    assert "logit_standardisation is incomplete" in data_warnings(opened)[-1]


def forbidden(*_, **__):
    raise AssertionError("work was begun before the refusal")


def two_folders(folder, *, readable):
    """Make an image folder of two classes. If not `readable`, opening any image fails."""
    for split in ("train", "test"):
        for name in ("cats", "dogs"):
            (folder / split / name).mkdir(parents=True)
            for number in range(40):
                path = folder / split / name / f"{number}.png"
                if readable:
                    Image.new("RGB", (16, 16), (number, 0, 0)).save(path)
                else:
                    path.write_bytes(b"no image")
    return folder


SINGLE = ("--space", "temperature", "--method", "logit_standardisation")
SEVERAL = ("--space", "method", "--methods", "kd,logit_standardisation+adapter")


@pytest.mark.parametrize("flags", [SINGLE, SEVERAL])
@pytest.mark.parametrize("dry", [(), ("--dry-run",)])
def test_the_refusal_comes_before_any_download(command, monkeypatch, tmp_path, flags, dry):
    monkeypatch.setattr("study.cli.request._download", forbidden)
    monkeypatch.setattr("study.cli.request._plan_values", forbidden)
    words = ("--dataset", "glue:sst2", "--download", "--data-root", tmp_path, "--output-dir", tmp_path / "out")
    done = command(launch_main, *flags, *words, *dry)
    assert done.code == 2
    assert "learns nothing from the teacher on two classes, as in 'glue:sst2'" in done.err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("flags", [SINGLE, SEVERAL])
def test_the_refusal_comes_before_any_image_of_a_folder_is_opened(command, tmp_path, flags):
    folder = two_folders(tmp_path / "pets", readable=False)
    done = command(launch_main, *flags, "--dataset", f"image_folder:{folder}", "--output-dir", tmp_path / "out")
    assert done.code == 2
    assert "learns nothing from the teacher on two classes" in done.err
    kd = ("--space", "temperature", "--method", "kd", "--dataset", f"image_folder:{folder}")
    done = command(launch_main, *kd, "--output-dir", tmp_path / "out")
    assert done.code == 2
    assert "two classes" not in done.err  # these images cannot be opened


def test_the_warning_comes_before_a_download_and_before_images_are_decoded(command, monkeypatch, tmp_path):
    said, echo = [], typer.echo
    monkeypatch.setattr("study.cli.request.typer.echo", lambda text, **way: (said.append(text), echo(text, **way)))

    def download(*_, **__):
        assert any("With two classes, dkd is incomplete" in text for text in said)
        raise UsageError("the download was begun")

    monkeypatch.setattr("study.cli.request._download", download)
    words = ("--space", "temperature", "--method", "dkd", "--dataset", "glue:sst2", "--download")
    done = command(launch_main, *words, "--data-root", tmp_path, "--output-dir", tmp_path / "out")
    assert "the download was begun" in done.err
    several = ("--space", "method", *words[4:], "--data-root", tmp_path, "--output-dir", tmp_path / "out")
    said.clear()
    command(launch_main, *several)
    assert {text.split(" ")[4] for text in said if "two classes" in text} == {
        "dkd", "dist", "atkd", "nkd", "pld", "rld", "wkd_l",
    }  # fmt: skip
    said.clear()

    def scan(*_):
        assert any("With two classes, dkd is incomplete" in text for text in said)
        raise ValueError("images are opened")

    monkeypatch.setattr("trainables.data.image_scan.scan_of", scan)
    folder = two_folders(tmp_path / "pets", readable=True)
    done = command(launch_main, *words[:4], "--dataset", f"image_folder:{folder}", "--output-dir", tmp_path / "out")
    assert "images are opened" in done.err


def test_the_number_of_classes_is_known_without_a_sample(tmp_path):
    assert class_count("glue:sst2") == 2
    assert class_count("cifar100") == 100
    assert class_count(f"image_folder:{two_folders(tmp_path / 'pets', readable=False)}") == 2
    assert class_count("image_folder:/nowhere") is None
    assert class_count("unknown") is None
