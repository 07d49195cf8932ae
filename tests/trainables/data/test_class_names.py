"""Class names are listed in the order of the labels."""

from dataclasses import replace

import pytest
from torchvision import datasets

from tests.trainables.data.conftest import random_images, write_images
from trainables.data import load_dataset
from trainables.data.class_names import in_words, with_class_names
from trainables.data.image_folder import list_image_folder
from trainables.data.registry import dataset_info
from trainables.spec.datasets import DATASETS


@pytest.mark.parametrize("name", [name for name in DATASETS if name != "tiny_imagenet"])
def test_every_published_dataset_names_each_class_once(name):
    info = DATASETS[name]
    assert len(set(info.class_names)) == len(info.class_names) == info.num_classes


def test_names_are_torchvisions():
    assert list(DATASETS["fashion_mnist"].class_names) == datasets.FashionMNIST.classes
    # torchvision has "3 - three".
    assert list(DATASETS["mnist"].class_names) == [name[0] for name in datasets.MNIST.classes]


def test_cifar_100_has_the_names_that_lie_beside_its_files(data_root):
    names = (data_root / "cifar-100-binary" / "fine_label_names.txt").read_text().split()
    assert list(DATASETS["cifar100"].class_names) == names


def test_a_folders_classes_are_its_folders_in_the_order_of_the_labels(tmp_path):
    for number, name in enumerate(("owl", "Cat", "dog 2")):
        write_images(tmp_path / "train" / name, random_images(5, 3, 8, 8, seed=number))
    list_image_folder.cache_clear()
    dataset = load_dataset(f"image_folder:{tmp_path}", None)
    assert (
        dataset.info.class_names == tuple(datasets.ImageFolder(tmp_path / "train").classes) == ("Cat", "dog 2", "owl")
    )


def test_tiny_imagenets_classes_are_its_identifiers_with_their_meanings_where_these_are_there(tmp_path):
    info = replace(DATASETS["tiny_imagenet"], num_classes=3)
    assert with_class_names(info, tmp_path).class_names == ()  # no file exists
    root = tmp_path / "tiny-imagenet-200"
    (root / "train").mkdir(parents=True)
    (root / "val" / "images").mkdir(parents=True)
    (root / "val" / "val_annotations.txt").touch()
    (root / "wnids.txt").write_text("n03\nn01\nn02\n")
    assert with_class_names(info, tmp_path).class_names == ("n01", "n02", "n03")
    (root / "words.txt").write_text("n00\tentity\nn01\tgoldfish, Carassius auratus\nn03\tbee\n")
    assert with_class_names(info, tmp_path).class_names == ("n01 goldfish, Carassius auratus", "n02", "n03 bee")


def test_a_task_has_its_labels_in_order():
    assert dataset_info("glue:mnli").class_names == ("entailment", "neutral", "contradiction")
    assert dataset_info("glue:sst2").class_names == ("negative", "positive")


def test_a_long_list_is_shortened_and_commas_in_names_do_not_divide_them():
    assert in_words(("a", "b")) == "a, b"
    assert in_words(tuple("abcdefghijklm"), most=4) == "a, b, c, ..., m"
    assert in_words(("goldfish, Carassius", "bee")) == "goldfish, Carassius; bee"
