from dataclasses import replace

import pytest
import torch
from torchvision import datasets
from torchvision.transforms import v2

from tests.trainables.data.conftest import random_images, write_images
from trainables.data import load_dataset
from trainables.data.image_folder import list_image_folder
from trainables.data.registry import dataset_info
from trainables.data.views import view_table
from trainables.spec.datasets import DATASETS

pytestmark = pytest.mark.study


@pytest.fixture
def folder(tmp_path):
    for number, name in enumerate(("cat", "dog")):
        write_images(tmp_path / "train" / name, random_images(20, 3, 32, 32, seed=number))
        write_images(tmp_path / "val" / name, random_images(3, 3, 32, 32, seed=10 + number))
    return tmp_path


def load(folder):
    return load_dataset(f"image_folder:{folder}", None)


def test_a_folder_of_small_images_is_read_as_torchvision_reads_it(folder):
    dataset = load(folder)
    assert dataset.info.split_sizes == (36, 4, 6)
    assert (dataset.num_classes, dataset.info.image_size, dataset.info.channels) == (2, 32, 3)
    expected = datasets.ImageFolder(folder / "val", transform=v2.PILToTensor())
    assert torch.equal(dataset.test.images, torch.stack([image for image, _ in expected]))
    assert dataset.test.labels.tolist() == expected.targets
    train = datasets.ImageFolder(folder / "train", transform=v2.PILToTensor())
    for index, image, label in zip(dataset.train.indices, dataset.train.images, dataset.train.labels, strict=True):
        assert torch.equal(image, train[index][0])
        assert label == train[index][1]


def test_without_a_test_part_one_is_carved_out(folder):
    (folder / "val").rename(folder / "kept")
    dataset = load(folder)
    assert tuple(map(len, (dataset.train, dataset.validation, dataset.test))) == (32, 4, 4)
    indices = torch.cat([split.indices for split in (dataset.train, dataset.validation, dataset.test)])
    assert sorted(indices.tolist()) == list(range(40))
    assert dataset.test.labels.bincount().tolist() == [2, 2]


@pytest.mark.parametrize("with_test", [True, False])
def test_another_split_keeps_the_test_images(with_test, folder):
    if not with_test:
        (folder / "val").rename(folder / "kept")
    first, other = (load_dataset(f"image_folder:{folder}", None, split_number=number) for number in (0, 1))
    assert not torch.equal(first.train.indices, other.train.indices)
    assert torch.equal(first.test.images, other.test.images)
    kept = [] if with_test else other.test.indices.tolist()
    assert sorted([*other.train.indices.tolist(), *other.validation.indices.tolist(), *kept]) == list(range(40))
    assert first.digest != other.digest


@pytest.mark.parametrize(
    ("rare", "with_test", "kept"),
    [(2, True, (1, 1)), (1, True, (1, 0)), (2, False, (1, 1)), (3, False, (2, 1))],
)
def test_a_rare_class_keeps_a_training_and_a_validation_image(rare, with_test, kept, folder):
    write_images(folder / "train" / "cat", random_images(60, 3, 32, 32))
    for path in sorted((folder / "train" / "dog").iterdir())[rare:]:
        path.unlink()
    if not with_test:
        (folder / "val").rename(folder / "kept")
    dataset = load(folder)
    assert sum(dataset.info.split_sizes) == 60 + rare + (6 if with_test else 0)
    found = [split.labels.bincount(minlength=2).tolist()[1] for split in (dataset.train, dataset.validation)]
    assert tuple(found) == kept


def test_a_folder_too_small_for_its_classes_is_refused_with_the_smallest_of_them(folder):
    for name, count in (("cat", 2), ("dog", 1)):
        for path in sorted((folder / "train" / name).iterdir())[count:]:
            path.unlink()
    with pytest.raises(
        ValueError, match=rf"{folder}/train: 3 samples of 2 classes are too few: .*: dog \(1\), cat \(2\)"
    ):
        dataset_info(f"image_folder:{folder}")


def test_where_a_folder_lies_does_not_change_the_dataset(folder, tmp_path_factory):
    digest = load(folder).digest
    moved = tmp_path_factory.mktemp("elsewhere") / "images"
    folder.rename(moved)
    assert load(moved).digest == digest


def test_an_image_that_changes_is_decoded_again(folder):
    digest = load(folder).digest
    write_images(folder / "train" / "cat", random_images(1, 3, 32, 32, seed=5))
    assert load(folder).digest != digest


def test_photographs_are_resized_cropped_and_shown_in_a_finite_number_of_windows(tmp_path):
    photographs = {name: random_images(12, 3, 300, 400, seed=number) for number, name in enumerate(("cat", "dog"))}
    for name, images in photographs.items():
        write_images(tmp_path / "train" / name, images)
    write_images(tmp_path / "train" / "cat", random_images(1, 1, 280, 260), kind="jpg")  # one of the images is grey
    dataset = load(tmp_path)
    info = dataset.info
    assert (info.channels, info.image_size, info.stored_size, info.num_views) == (3, 224, 256, 64)
    middle = v2.Compose([v2.Resize(256, antialias=True), v2.CenterCrop(224)])
    listed = list_image_folder(tmp_path).train
    for index, image in zip(dataset.validation.indices, dataset.validation.images, strict=True):
        name = listed[index][0]
        if name.endswith(".png"):
            source = photographs[name.split("/")[1]][int(name[-7:-4])]
            assert (image.int() - middle(source).int()).abs().max() <= 1
    table = view_table(info, "views")
    viewed = dataset.viewed(table, torch.device("cpu"))
    indices, views = torch.tensor([0, 5, 5, 0]), torch.tensor([0, 3, 40, 3])
    batch = viewed.batch(indices, views)
    assert batch.shape == (4, 3, 224, 224)
    assert batch.is_contiguous(memory_format=torch.channels_last)
    for image, index, view in zip(batch, indices, views, strict=True):
        source = dataset.train.source[dataset.train.indices[index]]
        expected = v2.functional.resized_crop(source, *table.windows[view], [224, 224], antialias=True)
        assert torch.equal(image, expected.flip(-1) if table.mirrored[view] else expected)
    assert torch.equal(batch[0], dataset.train.images[0])


def test_what_takes_much_memory_is_decoded_into_a_file(folder, monkeypatch, own_cache):
    expected = load(folder)
    for path in (own_cache / "datasets").rglob("*"):
        path.unlink() if path.is_file() else None
    monkeypatch.setattr("trainables.data.folders._MAX_BYTES_IN_MEMORY", 1)
    found = load(folder)
    assert found.digest == expected.digest
    assert torch.equal(found.test.images, expected.test.images)
    assert {path.name for path in (own_cache / "datasets").rglob("*") if path.is_file()} == {
        "images.arrow", "samples.safetensors", "lock",
    }  # fmt: skip


def test_windows_lie_within_the_image_and_vary_in_area_and_shape():
    info = replace(DATASETS["tiny_imagenet"], image_size=224, resized_crops=64, padding=0)
    table = view_table(info, "views")
    areas, ratios = [], []
    for top, left, height, width in table.windows[1:]:
        assert 0 <= top <= 256 - height
        assert 0 <= left <= 256 - width
        areas.append(height * width / 256**2)
        ratios.append(width / height)
    assert 0.07 < min(areas) < 0.2
    assert 0.8 < max(areas) <= 1
    assert 0.74 < min(ratios) < 0.85
    assert 1.2 < max(ratios) < 1.35
    assert 20 <= sum(table.mirrored) <= 44
    assert len(set(zip(table.windows, table.mirrored, strict=True))) == 64
    assert view_table(info, "views") == table


def test_a_folder_without_training_images_is_refused(tmp_path):
    with pytest.raises(ValueError, match=rf"{tmp_path}/train/CLASS/, and there is no such folder"):
        dataset_info(f"image_folder:{tmp_path}")


def test_a_class_without_training_images_is_refused_by_name(folder):
    for path in (folder / "train" / "dog").iterdir():
        path.unlink()
    with pytest.raises(ValueError, match=rf"{folder}/train/dog: contains no images"):
        dataset_info(f"image_folder:{folder}")


def test_a_validation_part_of_the_folder_validates_and_nothing_is_drawn(folder):
    (folder / "val").rename(folder / "test")
    write_images(folder / "val" / "cat", random_images(2, 3, 32, 32, seed=20))
    write_images(folder / "val" / "dog", random_images(3, 3, 32, 32, seed=21))
    dataset, other_seed = load(folder), load_dataset(f"image_folder:{folder}", None, seed=1)
    assert dataset.info.split_sizes == (40, 5, 6)
    for name, split in (("train", dataset.train), ("val", dataset.validation), ("test", dataset.test)):
        expected = datasets.ImageFolder(folder / name, transform=v2.PILToTensor())
        assert torch.equal(split.images, torch.stack([image for image, _ in expected]))
        assert split.labels.tolist() == expected.targets
    assert dataset.digest == other_seed.digest
    table = view_table(dataset.info, "views")
    batch = dataset.viewed(table, torch.device("cpu")).batch(torch.tensor([3]), torch.tensor([0]))
    assert torch.equal(batch, dataset.train.images[[3]])
    write_images(folder / "val" / "cat", random_images(1, 3, 32, 32, seed=30))  # the digest includes validation images
    assert load(folder).digest != dataset.digest


def test_a_damaged_image_is_refused_by_name(folder):
    path = folder / "train" / "dog" / "004.png"
    path.write_bytes(path.read_bytes()[:60])
    with pytest.raises(ValueError, match=rf"{folder}: 1 of 40 images cannot be used:\n  train/dog/004.png: truncated"):
        load(folder)


def test_an_image_of_another_size_is_refused_by_name(folder):
    write_images(folder / "train" / "dog", random_images(1, 3, 32, 31))
    with pytest.raises(ValueError, match=r"train/dog/000.png: 31 x 32 pixels, but the dataset has 32 x 32"):
        load(folder)


@pytest.fixture
def tiny(tmp_path, shrink):
    """Write a small Tiny ImageNet in the published layout."""
    root = tmp_path / "tiny-imagenet-200"
    names = ["n02", "n01", "n03", "n04"]
    for number, name in enumerate(names):
        write_images(root / "train" / name / "images", random_images(10, 3, 64, 64, seed=number), kind="jpg")
    write_images(root / "train" / "n03" / "images", random_images(1, 1, 64, 64), kind="jpg")  # some are grey
    (root / "train" / "n03" / "images" / "._000.jpg").write_bytes(b"left by macOS")
    write_images(root / "val" / "images", random_images(20, 3, 64, 64, seed=9), kind="jpg")
    lines = [f"{i:03d}.jpg\t{names[i % 4]}\t0\t0\t62\t62\n" for i in range(20)]
    (root / "val" / "val_annotations.txt").write_text("".join(lines))
    (root / "wnids.txt").write_text("\n".join(names))
    shrink("tiny_imagenet", num_classes=4)
    return tmp_path


def test_tiny_imagenet_is_read_with_its_labelled_validation_part_as_the_test(tiny):
    dataset = load_dataset("tiny_imagenet", tiny)
    expected = datasets.ImageFolder(
        tiny / "tiny-imagenet-200" / "train",
        transform=v2.PILToTensor(),
        is_valid_file=lambda path: "/._" not in path,
    )
    for index, image, label in zip(dataset.train.indices, dataset.train.images, dataset.train.labels, strict=True):
        assert torch.equal(image, expected[index][0])
        assert label == expected[index][1]
    # Classes are numbered by their sorted names: n02 is 1, n01 is 0.
    assert dataset.test.labels.tolist() == [1, 0, 2, 3] * 5
    assert dataset.test.images.shape == (20, 3, 64, 64)


def test_a_list_that_names_an_unknown_class_is_refused_with_the_line(tiny):
    path = tiny / "tiny-imagenet-200" / "val" / "val_annotations.txt"
    path.write_text(path.read_text().replace("002.jpg\tn03", "002.jpg\tn99"))
    dataset = load_dataset("tiny_imagenet", tiny)
    with pytest.raises(ValueError, match=r"val_annotations.txt, line 3: class 'n99' is not in .*wnids.txt"):
        _ = dataset.test
