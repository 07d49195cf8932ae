"""Whole studies on datasets read from files."""

import json
import shutil

import pytest
import torch
from PIL import Image

from study.cli.request import resumed_plan
from study.launch import main
from study.ledger.ledger import StudyLedger
from study.plan.resolve import load_plan
from study.records import read_trials
from tests.analysis.report.studies import Page
from tests.study.factories import make_plan
from trainables.data.image_folder import list_image_folder
from trainables.process.errors import UsageError
from trainables.spec.datasets import DATASETS, check_files

SHORT = ("--space", "adapter_width", "--smoke", "--student", "cnn_3_4", "--teacher", "cnn_8_16", "--teacher-recipe",
         "short", "--teacher-epochs", 1, "--json")  # fmt: skip


@pytest.fixture
def images(tmp_path):
    generator = torch.Generator().manual_seed(0)
    for label, name in enumerate(("dark", "medium", "light")):
        for number in range(40):
            path = tmp_path / "images" / "train" / name / f"{number:02d}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            pixels = torch.randint(80 * label, 80 * label + 96, (16, 16, 3), generator=generator).byte().numpy()
            Image.fromarray(pixels).quantize(64).save(path)
    return tmp_path / "images"


def test_a_study_runs_on_an_image_folder(launch, images, tmp_path, monkeypatch):
    monkeypatch.chdir(images.parent)  # the relative path also works for workers with another working directory
    done = launch(*SHORT, "--dataset", "image_folder:images", "--output-dir", tmp_path / "out", "--name", "folder",
                  PESFKD_CACHE=str(tmp_path / "cache"), PYTHONPATH="")  # fmt: skip
    assert done.returncode == 0, done.stderr
    trials = read_trials(tmp_path / "out" / "folder").to_pylist()
    assert {trial["dataset"] for trial in trials} == {f"image_folder:{images}"}
    assert {trial["status"] for trial in trials} == {"finished"}
    recorded = StudyLedger(load_plan(tmp_path / "out" / "folder"), read_only=True).dataset
    assert recorded["class_names"] == ["dark", "light", "medium"]
    summary = json.loads(done.stdout)
    assert summary["study"] == "folder"
    # 12 images validate, 4 of each class. All outputs warn of the small split and of scores at the level of one class.
    assert {trial["data/val_samples"] for trial in trials} == {12.0}
    assert {trial["data/val_constant_score"] for trial in trials} == {4 / 12}
    small = "The validation split has 12 images: one of them is worth 8.3 points of accuracy"
    assert f"warning: {small}" in done.stderr
    warnings = [note for note in summary["notes"] if small in note or "Not above a constant answer" in note]
    assert warnings
    assert summary["notes"][: len(warnings)] == warnings
    page = Page((tmp_path / "out" / "folder" / "report.html").read_text(encoding="utf-8"))
    for warning in warnings:
        assert warning in page.said["warnings"]
        assert warning not in page.said["results"]


@pytest.mark.parametrize("dry_run", [(), ("--dry-run",)])
def test_all_damaged_images_are_named_before_any_work(dry_run, launch, images, tmp_path):
    broken = images / "train" / "medium" / "07.png"
    broken.write_bytes(broken.read_bytes()[:200])
    (images / "train" / "dark" / "11.png").write_bytes(b"")
    (images / "test" / "light").mkdir(parents=True)
    Image.new("RGB", (16, 17)).save(images / "test" / "light" / "0.png")
    done = launch(*SHORT, "--dataset", f"image_folder:{images}", "--output-dir", tmp_path / "out", "--name", "broken",
                  *dry_run, PESFKD_CACHE=str(tmp_path / "cache"))  # fmt: skip
    assert done.returncode == 2
    assert done.stderr == (
        f"error: --dataset: {images}: 3 of 121 images cannot be used:\n"
        "  train/dark/11.png: empty (0 bytes)\n"
        "  train/medium/07.png: truncated\n"
        "  test/light/0.png: 16 x 17 pixels: most images have 16 x 16 pixels, so all must\n"
        "Repair, convert or remove these files and start again.\n"
    )
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (("--dataset", "fashion_mnist"), "dataset fashion_mnist is not complete without a data root"),
        (("--dataset", "fashion_mnist", "--download"), "--download needs --data-root"),
        (("--dataset", "tiny_imagenet", "--data-root", "{}", "--download"), "tiny_imagenet cannot be downloaded"),
        (("--dataset", "image_folder:{}/nowhere"), "nowhere/train/CLASS/, and there is no such folder"),
        (("--dataset", "fashion"), "did you mean 'fashion_mnist'"),
    ],
)
def test_a_dataset_that_is_not_there_is_a_mistake_in_usage(launch, flags, said, tmp_path):
    done = launch(*SHORT, *(flag.format(tmp_path) for flag in flags), "--output-dir", tmp_path / "out",
                  PESFKD_DATA_ROOT="")  # fmt: skip
    assert done.returncode == 2, done.stderr
    assert said in done.stderr
    assert not (tmp_path / "out").exists()


def test_missing_files_are_named_once_and_so_is_another_layout_that_would_do(tmp_path):
    (tmp_path / "cifar-100-python").mkdir()
    (tmp_path / "cifar-100-python" / "train.gz").touch()
    with pytest.raises(ValueError, match="not complete") as raised:
        check_files(DATASETS["cifar100"], tmp_path)
    said = str(raised.value)
    assert f"under {tmp_path}: cifar-100-python/test is missing (each may be packed, as .gz or .xz; " in said
    assert "instead of them all, cifar-100-binary/train.bin, cifar-100-binary/test.bin would do)" in said
    assert said.count("cifar-100-python") == 1


@pytest.mark.parametrize("of_a_teacher", [False, True])
def test_an_image_folder_may_be_named_from_the_home_folder(of_a_teacher, launch, images, tmp_path):
    flags = ("--model", "cnn_3_4") if of_a_teacher else ("--space", "joint")
    done = launch(*flags, "--dataset", f"image_folder:~/{images.name}", "--dry-run", "--output-dir", tmp_path / "out",
                  module="trainables.teacher" if of_a_teacher else "study.launch", HOME=str(images.parent))  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert f"on image_folder:{images}" in done.stdout
    done = launch(*flags, "--dataset", "image_folder:~nobody-of-this-name/x", "--dry-run",
                  module="trainables.teacher" if of_a_teacher else "study.launch")  # fmt: skip
    assert done.returncode == 2
    assert "there is no such home; give the folder's whole path" in done.stderr


@pytest.mark.study
def test_a_resumed_study_fetches_its_files_too_if_that_is_asked_for(tmp_path):
    base = {"dataset": "tiny_imagenet", "student": "resnet8", "teacher": "resnet20"}
    (tmp_path / "data").mkdir()
    make_plan(tmp_path, base=base, data_root=tmp_path / "data").save()
    with pytest.raises(UsageError, match="tiny_imagenet is not complete"):
        resumed_plan("planned", tmp_path, {})
    with pytest.raises(UsageError, match=r"--download: .*tiny_imagenet cannot be downloaded"):
        resumed_plan("planned", tmp_path, {"download": True})


def test_a_dry_run_states_the_splits(launch, images, tmp_path):
    done = launch("--space", "joint", "--dataset", f"image_folder:{images}", "--dry-run", "--output-dir", tmp_path)
    assert done.returncode == 0, done.stderr
    assert "data       96 train, 12 validation (stratified, seed 0), 12 test (never used by a search)" in done.stdout
    assert "\nclasses    3: dark, light, medium\n" in done.stdout
    assert "\nwarning    The validation split has 12 images: one of them is worth 8.3 points" in done.stdout


@pytest.mark.parametrize(
    ("kept", "with_test", "warnings"),
    [
        ({"dark": 1}, True, ["The validation split has no image of these classes: dark (1 image)."]),
        ({"dark": 2}, True, []),
        ({"dark": 2, "light": 3}, False,
         ["The test split has no image of these classes: dark (2 images), light (3 images)."]),
    ],
)  # fmt: skip
def test_a_dry_run_names_classes_that_a_split_lacks(command, images, tmp_path, kept, with_test, warnings):
    shrink(images, kept)
    if with_test:
        shutil.copytree(images / "train", images / "test")
    flags = ("--space", "joint", "--dataset", f"image_folder:{images}", "--dry-run", "--output-dir", tmp_path / "out")
    done = command(main, *flags, "--json")
    assert done.code == 0, done.err
    told = json.loads(done.out)
    assert told["classes"] == ["dark", "light", "medium"]
    assert [each for each in told["warnings"] if "no image" in each] == warnings


def test_a_folder_whose_splits_cannot_hold_every_class_is_refused_before_any_work(command, images, tmp_path):
    shrink(images, {"dark": 1, "light": 2, "medium": 1})
    done = command(main, *SHORT, "--dataset", f"image_folder:{images}", "--output-dir", tmp_path / "out")
    assert done.code == 2
    assert f"{images}/train: 4 samples of 3 classes are too few" in done.err
    assert "Smallest classes: dark (1), medium (1), light (2). Add samples to them, or remove them" in done.err
    assert not (tmp_path / "out").exists()


def shrink(images, kept):
    """Keep only `kept[name]` training images of each class."""
    list_image_folder.cache_clear()
    for name, count in kept.items():
        for path in sorted((images / "train" / name).iterdir())[count:]:
            path.unlink()


def test_a_dry_run_states_how_the_files_of_a_folder_are_read(launch, images, tmp_path):
    (images / "train" / "dark" / "more").mkdir()
    (images / "train" / "dark" / "00.png").rename(images / "train" / "dark" / "more" / "00.PNG")
    for part, name in (("val", "dark"), ("val", "light"), ("val", "medium"), ("test", "dark"), ("test", "light")):
        (images / part / name).mkdir(parents=True)
        Image.new("L", (16, 16)).save(images / part / name / "0.jfif", format="JPEG")
    (images / "train" / "light" / "a.heic").touch()
    (images / "train" / "light" / "._a.png").touch()
    (images / "train" / ".ipynb_checkpoints").mkdir()
    flags = ("--space", "joint", "--dataset", f"image_folder:{images}", "--dry-run", "--output-dir", tmp_path)
    cache = {"PESFKD_CACHE": str(tmp_path / "cache")}
    text, parsed = launch(*flags, **cache), launch(*flags, "--json", **cache)
    assert text.returncode == 0, text.stderr
    assert (
        "data       120 train, 3 validation (val/), 2 test (never used by a search)\n"
        "images     train from train/, validation from val/, test from test/; 16 x 16 pixels, RGB\n"
        "           converted to RGB: 120 palette, 5 grey\n"
        "           skipped: 1 .heic\n"
        "           test/ has no images of medium (1 of 3 classes)\n"
    ) in text.stdout
    assert text.stderr == ""
    assert json.loads(parsed.stdout)["images"] == {
        "splits": {"train": "train/", "validation": "val/", "test": "test/"},
        "decoded_as": "RGB",
        "image_size": 16,
        "photographs": False,
        "converted": {"palette": 120, "grey": 5},
        "skipped": {".heic": 1},
        "outside_classes": 0,
        "notes": ["test/ has no images of medium (1 of 3 classes)"],
    }


def test_a_dry_run_downloads_nothing(launch, tmp_path):
    flags = ("--space", "joint", "--dataset", "cifar10", "--dry-run", "--download")
    done = launch(*flags, "--data-root", tmp_path / "data", "--output-dir", tmp_path / "out")
    assert done.returncode == 0, done.stderr
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_a_study_runs_on_fashion_mnist(command, data_root, tmp_path):
    done = command(main, *SHORT, "--dataset", "fashion_mnist", "--data-root", data_root, "--output-dir",
                   tmp_path / "out", "--name", "fashion", "--executor", "in-process")  # fmt: skip
    assert done.code == 0, done.said
    accuracies = [trial["val/accuracy"] for trial in read_trials(tmp_path / "out" / "fashion").to_pylist()]
    assert len(accuracies) == 5
    assert min(accuracies) > 0.4  # 0.1 is chance
