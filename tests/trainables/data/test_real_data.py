"""Loaders on the published files. The tests are skipped with a reason if the files are missing."""

import pytest
import torch
from torchvision import datasets

from trainables.data import load_dataset

pytestmark = pytest.mark.study


def test_fashion_mnist_has_its_published_counts_and_statistics(data_root):
    dataset = load_dataset("fashion_mnist", data_root)
    assert tuple(map(len, (dataset.train, dataset.validation, dataset.test))) == (55_000, 5_000, 10_000)
    for split, count in ((dataset.train, 5_500), (dataset.validation, 500), (dataset.test, 1_000)):
        assert split.labels.bincount().tolist() == [count] * 10
    assert dataset.mean == pytest.approx([0.2860], abs=5e-4)
    assert dataset.std == pytest.approx([0.3530], abs=5e-4)


def test_fashion_mnist_is_what_torchvision_reads(data_root, tmp_path):
    import gzip
    import shutil

    raw = tmp_path / "FashionMNIST" / "raw"
    raw.mkdir(parents=True)
    for packed in (data_root / "FashionMNIST" / "raw").glob("t10k*.gz"):
        with gzip.open(packed) as source, (raw / packed.stem).open("wb") as target:
            shutil.copyfileobj(source, target)
    for name in ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"):
        (raw / name).touch()  # torchvision requires all four files and reads two
    expected = datasets.FashionMNIST(tmp_path, train=False)
    test = load_dataset("fashion_mnist", data_root).test
    assert torch.equal(test.images[:, 0], expected.data)
    assert torch.equal(test.labels, expected.targets)


def test_cifar100_has_its_published_counts_and_statistics(data_root):
    dataset = load_dataset("cifar100", data_root)
    assert tuple(map(len, (dataset.train, dataset.validation, dataset.test))) == (45_000, 5_000, 10_000)
    for split, count in ((dataset.train, 450), (dataset.validation, 50), (dataset.test, 100)):
        assert split.labels.bincount().tolist() == [count] * 100
    # The published means are those of the whole training part. Ours are those of nine tenths of it.
    whole = torch.cat([dataset.train.images, dataset.validation.images]).double().mean((0, 2, 3)) / 255
    assert whole.tolist() == pytest.approx([0.5071, 0.4865, 0.4409], abs=5e-5)
    assert dataset.mean == pytest.approx([0.5071, 0.4865, 0.4409], abs=1e-3)
    assert dataset.std == pytest.approx([0.2673, 0.2564, 0.2762], abs=1e-3)


def test_cifar100s_classes_are_the_fine_ones(data_root):
    # In the binary version, a row begins with the coarse label. A loader that read the coarse label would find 20
    # classes.
    names = (data_root / "cifar-100-binary" / "fine_label_names.txt").read_text().split()
    test = load_dataset("cifar100", data_root).test
    means = torch.stack([test.images[test.labels == names.index(name)].double().mean((0, 2, 3)) for name in
                         ("sea", "poppy", "orange", "plain")])  # fmt: skip
    # Colours of these classes: blue sea, red poppies, orange oranges.
    assert means[0].argmax() == 2
    assert means[1].argmax() == means[2].argmax() == 0
