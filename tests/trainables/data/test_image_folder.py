import os

import numpy as np
import pytest
from PIL import Image
from torchvision import datasets

from trainables.data.image_folder import IMAGE_SUFFIXES, list_image_folder
from trainables.data.image_scan import scan_of


@pytest.fixture
def fill(tmp_path):
    """Return a function that writes images of two by two pixels at these paths."""

    def make(*names):
        for name in names:
            path = tmp_path / name
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("RGB", (2, 2)).save(path, format="PNG")
        return tmp_path

    return make


def listed(path):
    found = list_image_folder(path)
    return {part: [name for name, _ in found.files(part)] for part in ("train", "validation", "test")}


def test_every_suffix_that_torchvision_takes_is_taken_and_three_more():
    assert set(IMAGE_SUFFIXES) == {*datasets.folder.IMG_EXTENSIONS, ".jfif", ".jpe", ".gif"}


def test_suffixes_of_any_case_and_sub_folders_are_listed_as_torchvision_lists_them(fill, tmp_path, tmp_path_factory):
    names = [f"train/cat/{number}{suffix}" for number, suffix in enumerate(datasets.folder.IMG_EXTENSIONS)]
    names += ["train/cat/more/1.JPEG", "train/cat/more-2/a.Png", "train/cat/more/deep/0.jpg", "train/dog 1/b.TIF"]
    fill(*names)
    elsewhere = tmp_path_factory.mktemp("elsewhere")
    Image.new("RGB", (2, 2)).save(elsewhere / "linked.png")
    (tmp_path / "train" / "cat" / "link.png").symlink_to(elsewhere / "linked.png")
    (tmp_path / "train" / "dog 1" / "folder").symlink_to(elsewhere)
    expected = datasets.ImageFolder(tmp_path / "train")
    found = list_image_folder(tmp_path)
    assert found.classes == tuple(expected.classes)
    assert [(str(tmp_path / name), label) for name, label in found.train] == expected.samples
    assert len(found.train) == 15


def test_links_that_lead_back_are_followed_once(fill):
    folder = fill("train/cat/0.png", "train/dog/0.png")
    (folder / "train" / "cat" / "loop").symlink_to(folder / "train" / "cat")
    (folder / "train" / "cat" / "up").symlink_to(folder)
    (folder / "train" / "dog" / "itself").symlink_to("itself")
    assert listed(folder)["train"] == ["train/cat/0.png", "train/dog/0.png"]


def test_other_files_are_counted_by_suffix(fill):
    folder = fill("train/cat/0.png", "train/dog/0.png", "train/stray.png", "val/cat/0.png")
    for name in ("train/cat/a.heic", "train/cat/more.HEIC", "train/dog/notes.txt", "val/cat/b.heic", "val/README"):
        (folder / name).touch()
    found = list_image_folder(folder)
    assert dict(found.skipped) == {".heic": 3, ".txt": 1, "no suffix": 1}
    assert found.outside == 1
    assert len(found.train) == 2


@pytest.mark.parametrize("layout", ["train/", ""])
def test_what_systems_leave_on_disks_is_ignored(layout, fill):
    folder = fill(
        *(f"{layout}{name}" for name in ("cat/0.png", "dog/0.png")),
        *(
            f"{layout}{name}"
            for name in (
                "cat/._0.png", "dog/Thumbs.db", "dog/desktop.ini", "cat/.DS_Store", ".ipynb_checkpoints/0.png",
                "cat/.ipynb_checkpoints/0.png", "@eaDir/0.png", "cat/@eaDir/0.png/SYNOPHOTO_THUMB_M.jpg",
                "__MACOSX/cat/._0.png", "#recycle/old.png", "$RECYCLE.BIN/old.png", "lost+found/0.png",
            )
        ),
    )  # fmt: skip
    found = list_image_folder(folder)
    assert found.classes == ("cat", "dog")
    assert [name for name, _ in found.train] == [f"{layout}cat/0.png", f"{layout}dog/0.png"]
    assert not found.skipped
    assert found.outside == 0


def test_a_plain_folder_of_classes_is_taken(fill):
    found = list_image_folder(fill("dog/0.png", "cat/0.png", "cat/more/1.jfif"))
    assert found.classes == ("cat", "dog")
    assert found.train == (("cat/0.png", 0), ("cat/more/1.jfif", 0), ("dog/0.png", 1))
    assert not found.test
    assert not found.validation
    assert not found.folders


def test_classes_may_have_names_like_those_of_parts(fill):
    names = ["Test tube/0.png", "attraction/a/0.png", "contest/a/0.png", "train station/0.png", "training shoe/a/0.png"]
    assert list_image_folder(fill(*names)).classes == tuple(name.partition("/")[0] for name in names)


def test_names_of_classes_may_be_in_any_script(fill):
    names = ("hund-ö", "می\u200cشود", "犬", "no\u00a0break")
    assert set(list_image_folder(fill(*(f"{name}/0.png" for name in names))).classes) == set(names)


def test_a_class_may_be_called_train_in_a_plain_folder(fill):
    found = list_image_folder(fill("bus/0.png", "car/0.png", "train/0.png"))
    assert found.classes == ("bus", "car", "train")
    assert found.notes == ("train/ is read as a class",)


@pytest.mark.parametrize("validation", ["val", "valid", "validation", "Val"])
def test_with_all_three_parts_val_validates(validation, fill):
    names = [f"{part}/{name}/0.png" for part in ("train", validation, "test") for name in ("cat", "dog")]
    found = listed(fill(*names))
    assert found == {"train": names[:2], "validation": names[2:4], "test": names[4:]}


def test_a_class_of_one_image_need_not_be_in_the_validation_part(fill):
    found = list_image_folder(fill("train/cat/0.png", "train/dog/0.png", "val/dog/0.png", "test/dog/0.png"))
    assert [name for name, _ in found.validation] == ["val/dog/0.png"]
    assert "val/ has no images of cat (1 of 2 classes)" in found.notes


@pytest.mark.parametrize("part", ["val", "test", "valid", "Test", "testing"])
def test_one_part_beside_train_is_the_test(part, fill):
    found = listed(fill("Train/cat/0.png", "Train/dog/0.png", f"{part}/cat/0.png", f"{part}/dog/0.png"))
    assert found["train"] == ["Train/cat/0.png", "Train/dog/0.png"]
    assert found["test"] == [f"{part}/cat/0.png", f"{part}/dog/0.png"]
    assert not found["validation"]


def test_what_is_not_read_is_noted(fill):
    folder = fill(
        "train/cat/0.png", "train/dog/0.png", "train/owl/0.png", "val/cat/0.png", "test/0.png", "unlabelled/0.png"
    )
    (folder / "val" / "dog").mkdir()
    (folder / "val" / "empty").mkdir()
    found = list_image_folder(folder)
    assert [name for name, _ in found.test] == ["val/cat/0.png"]
    assert set(found.notes) == {
        "unlabelled next to train/ is ignored",
        "test/ has no images in class folders and is ignored",
        "val/ has no images of dog, owl (2 of 3 classes)",
    }


REFUSED = {
    "no folder": ((), "needs images in .*/CLASS/ or .*/train/CLASS/, and there is no such folder"),
    "one class": (("train/cat/0.png",), "train: 1 class folder; at least 2"),
    "a wrapped dataset": (("photos/cat/0.png", "photos/dog/0.png"), "Did you mean .*/photos"),
    "a class of validation alone": (
        ("train/cat/0.png", "train/dog/0.png", "val/Dog/0.png"), "val: classes missing from .*train: Dog"),
    "parts without classes": (("train/0.png", "test/0.png"), "test, train has images outside class folders"),
    "test alone": (("test/cat/0.png", "test/dog/0.png"), "test has no training part"),
    "two names of one part": (
        ("train/cat/0.png", "train/dog/0.png", "val/cat/0.png", "valid/cat/0.png"), "val/ and valid/ both name"),
    "train as a class with sub-folders": (
        ("bus/0.png", "car/0.png", "train/steam/0.png", "train/electric/0.png"), "or a class like bus, car"),
    "parts of other names": (
        ("training_set/cat/0.png", "training_set/dog/0.png", "test_set/cat/0.png", "test_set/dog/0.png"),
        "are test_set, training_set the parts of a dataset"),
    "wrapped parts": (
        ("seg_train/seg_train/cat/0.png", "seg_train/seg_train/dog/0.png", "seg_test/seg_test/cat/0.png",
         "seg_pred/0.png"), "are seg_test, seg_train the parts"),
    "a class name that is no text": (
        ("train/cat/0.png", "train/caf\udce9/0.png"), r"not valid UTF-8, or .*: caf\\udce9"),
    "a class name of two lines": (("cat/0.png", "do\ng/0.png"), r"line breaks or other control characters: do\\ng"),
    "a class that is not validated": (
        ("train/cat/0.png", "train/cat/1.png", "train/dog/0.png", "val/dog/0.png", "test/dog/0.png"),
        r"val: no image of cat \(1 of 2 classes\). Every class with two or more images needs a validation image"),
    "datasets in a folder": (
        ("a/train/cat/0.png", "a/test/cat/0.png", "b/train/cat/0.png"), "a is itself split into train and test"),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_a_folder_that_cannot_be_understood_is_refused(case, fill):
    names, message = REFUSED[case]
    with pytest.raises(ValueError, match=message):
        list_image_folder(fill(*names))


@pytest.mark.parametrize("name", ["x" * 300, "\0", "file", "caf\udce9"])
def test_a_path_that_is_no_folder_is_refused(name, tmp_path):
    (tmp_path / "file").touch()
    (tmp_path / "caf\udce9").mkdir()
    with pytest.raises(
        ValueError,
        match=r"cannot be listed \(File name too long\)|there is no such folder|caf\\udce9 is not valid UTF-8",
    ):
        list_image_folder(tmp_path / name)


@pytest.mark.parametrize("layout", ["train/", ""])
def test_a_class_without_images_is_refused_by_name(layout, fill):
    folder = fill(f"{layout}cat/0.png", f"{layout}dog/0.png")
    (folder / layout / "owl").mkdir()
    (folder / layout / "owl" / "photo.heic").touch()
    with pytest.raises(
        ValueError, match=rf"{folder / layout / 'owl'}: contains no images \(.jpg, .*remove the class or add images"
    ):
        list_image_folder(folder)


def test_names_that_are_no_text_are_listed(fill):
    folder = fill("cat/0.png", "dog/0.png")
    strange = os.fsencode(folder) + b"/cat/\xff\xfe.png"
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(os.fsdecode(strange), format="PNG")
    assert len(list_image_folder(folder).train) == 3
    assert scan_of(list_image_folder(folder)).modes == {"RGB": 2, "L": 1}
