"""The networks of a study are tried on the shape of the data before any work: in dry runs and on resume."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch

from study import launch as launcher
from study.cli.request import resumed_plan
from study.plan.methods import choose_methods
from study.plan.network_checks import check_networks
from tests.study.factories import make_plan
from trainables.process.errors import UsageError

pytestmark = pytest.mark.study


@pytest.mark.study
@pytest.mark.parametrize("more", [("--dry-run",), ()], ids=["dry run", "run"])
@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (("--student", "timm:vit_tiny_patch16_224"), "--student timm:vit_tiny_patch16_224: it cannot take images of "),
        (("--teacher", "torchvision:resnet81"), "did you mean 'torchvision:resnet18'?"),
        (("--teacher", "torchvision:fasterrcnn_resnet50_fpn"), "torchvision has no classifier"),
        (("--student", "vgg8", "--set", "batch_size=1"), "give --set batch_size=2"),
    ],
)
def test_networks_that_do_not_fit_are_refused_before_any_work(command, tmp_path, arguments, says, more):
    out = tmp_path / "out"
    done = command(launcher.main, "--space", "adapter_width", *arguments, *more, "--output-dir", out)
    assert done.code == 2, done.said
    assert says in done.err
    assert "Traceback" not in done.err
    assert not out.exists()


def test_what_is_suggested_can_be_pasted(command, tmp_path):
    words = ("--space", "adapter_width", "--dry-run", "--output-dir", tmp_path / "out")
    refused = command(launcher.main, *words, "--student", "timm:vit_tiny_patch16_224")
    suggested = refused.err.rpartition("One that fits: ")[2].split()
    assert suggested[0] == "--student"
    assert command(launcher.main, *words, *suggested).code == 0


def test_an_architecture_that_does_not_fit_is_refused_before_a_checkpoint_of_it_is_read(command, tmp_path):
    checkpoint = tmp_path / "net.pth"
    torch.save({"weight": torch.ones(1)}, checkpoint)
    words = ("--space", "adapter_width", "--dry-run", "--output-dir", tmp_path / "out", "--teacher-checkpoint")
    for name, reason in (
        (
            "timm:vit_tiny_patch16_224",
            r"takes images of 224 pixels alone .*One that fits: --teacher timm:resnet18, with a",
        ),
        ("torchvision:resnet81", r"did you mean 'torchvision:resnet18'"),
        ("cnn_9999_9999", r"some 900 million parameters"),
    ):
        refused = command(launcher.main, *words, checkpoint, "--teacher", name)
        assert refused.code == 2
        assert re.search(f"error: --teacher {name}: .*{reason}", refused.err), refused.err


def test_a_resumed_study_is_checked_too(command, tmp_path):
    make_plan(tmp_path, base={"student": "torchvision:resnet81"}).save()
    done = command(launcher.main, "--resume", "planned", "--output-dir", tmp_path)
    assert done.code == 2
    assert "did you mean 'torchvision:resnet18'" in done.err


def test_a_peer_is_trained_as_the_student_is_and_checked_so(tmp_path):
    make = lambda method, **base: make_plan(  # noqa: E731
        tmp_path, space="temperature", overrides={"batch_size": 1}, base={"method": method, "teacher": "vgg8", **base}
    )
    with pytest.raises(UsageError, match=r"--teacher vgg8: its maps shrink to one position"):
        check_networks(make("dml"))
    check_networks(make("kd"))  # the teacher of kd is trained by a recipe with larger batches


@pytest.mark.study
def test_a_method_that_cannot_match_the_networks_is_refused_by_name_and_otherwise_left_out(command, tmp_path):
    out = tmp_path / "out"
    words = ("--space", "method", "--dry-run", "--output-dir", out)
    everything = json.loads(command(launcher.main, *words, "--json").out)
    assert "sftn" in _names(everything)
    assert not any("cannot match" in reason for reason in everything["left_out"])
    folder = _folder_of_images(tmp_path, 9)
    words = (*words, "--dataset", f"image_folder:{folder}", "--teacher", "resnet8")
    refused = command(launcher.main, *words, "--methods", "kd,sftn")
    assert refused.code == 2
    assert "--methods sftn cannot match teacher resnet8 and student cnn_3_4" in refused.err
    assert command(launcher.main, *words, "--methods", "kd,fitnet").code == 0
    planned = json.loads(command(launcher.main, *words, "--json").out)
    assert set(_names(planned)) == set(_names(everything)) - {"sftn"}
    shown = command(launcher.main, *words)
    assert shown.code == 0
    says = "left out   sftn: cannot match teacher resnet8 and student cnn_3_4 (the teacher's maps of 5 × 5"
    assert says in shown.out
    assert not out.exists()


def test_a_comparison_that_has_a_method_which_cannot_match_its_networks_is_resumed_all_the_same(tmp_path):
    """Plans of earlier versions contain such methods. Their trials fail, and the trials of other methods continue."""
    base = {"dataset": f"image_folder:{_folder_of_images(tmp_path, 9)}", "teacher": "resnet8", "method": "kd"}
    compared = choose_methods(["kd", "sftn"], base, {})
    plan = make_plan(tmp_path, space="method", base=base, compared=compared, controls=())
    plan.save()
    with pytest.raises(UsageError, match="--methods sftn cannot match"):
        check_networks(plan)
    assert resumed_plan("planned", tmp_path, {}).compared == compared


def _names(planned: dict[str, Any]) -> list[str]:
    return [method["name"] for method in planned["plan"]["compared"]]


def _folder_of_images(folder: Path, size: int) -> Path:
    """Write an image folder of three classes with images of this size."""
    from PIL import Image

    for label in range(3):  # with two classes, logit standardisation is left out
        (folder / "images" / "train" / f"class-{label}").mkdir(parents=True)
        for number in range(12):
            image = Image.new("RGB", (size, size), (90 * label, number, 0))
            image.save(folder / "images" / "train" / f"class-{label}" / f"{number}.png")
    return folder / "images"
