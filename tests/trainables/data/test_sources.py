import gzip
import lzma
import pickle
import re
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import torch
from torchvision import datasets

from tests.trainables.data.conftest import TEST, TRAIN, VALIDATION, write, write_cifar, write_idx
from trainables.data import load_dataset, sources
from trainables.spec.datasets import DATASETS

IDX = ("fashion_mnist", "mnist")


def whole_train_part(dataset):
    """Return images and labels of train and validation together, in the order of the files."""
    order = torch.cat([dataset.train.indices, dataset.validation.indices]).argsort()
    images = torch.cat([dataset.train.images, dataset.validation.images])[order]
    return images.numpy(), torch.cat([dataset.train.labels, dataset.validation.labels])[order].numpy()


def check_contents(dataset, parts):
    """Assert that the splits of a dataset have the written images and labels."""
    assert tuple(map(len, (dataset.train, dataset.validation, dataset.test))) == (TRAIN, VALIDATION, TEST)
    for found, expected in (
        (whole_train_part(dataset), parts["train"]),
        ((dataset.test.images.numpy(), dataset.test.labels.numpy()), parts["test"]),
    ):
        np.testing.assert_array_equal(found[0], expected[0])
        np.testing.assert_array_equal(found[1], expected[1])


@pytest.mark.parametrize("packing", ["", ".gz", ".xz"])
@pytest.mark.parametrize("name", IDX)
def test_idx_files_are_read_as_they_are_or_packed(name, packing, shrink, tmp_path):
    parts = write_idx(tmp_path, shrink(name), packing)
    check_contents(load_dataset(name, tmp_path), parts)


@pytest.mark.parametrize("packing", ["", ".gz", ".xz"])
@pytest.mark.parametrize("kind", ["python", "binary"])
@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_both_versions_of_cifar_are_read_as_they_are_or_packed(name, kind, packing, shrink, tmp_path):
    parts = write_cifar(tmp_path, shrink(name), kind, packing)
    check_contents(load_dataset(name, tmp_path), parts)


def test_the_version_and_packing_of_the_files_do_not_change_the_dataset(shrink, tmp_path):
    info = shrink("cifar100")
    digests = set()
    for kind, packing in (("python", ""), ("binary", ".xz")):
        write_cifar(tmp_path / kind, info, kind, packing)
        digests.add(load_dataset("cifar100", tmp_path / kind).digest)
    assert len(digests) == 1


@pytest.mark.parametrize("name", IDX)
def test_idx_files_are_read_as_torchvision_reads_them(name, shrink, tmp_path):
    write_idx(tmp_path, shrink(name))
    reader = {"fashion_mnist": datasets.FashionMNIST, "mnist": datasets.MNIST}[name]
    expected = reader(tmp_path, train=False)
    test = load_dataset(name, tmp_path).test
    assert torch.equal(test.images[:, 0], expected.data)
    assert torch.equal(test.labels, expected.targets)


@pytest.mark.parametrize("name", ["cifar10", "cifar100"])
def test_cifars_python_version_is_read_as_torchvision_reads_it(name, shrink, tmp_path, monkeypatch):
    write_cifar(tmp_path, shrink(name), "python")
    reader = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    (tmp_path / reader.base_folder / reader.meta["filename"]).write_bytes(pickle.dumps({reader.meta["key"]: []}))
    # torchvision's checksums are those of the real files.
    monkeypatch.setattr("torchvision.datasets.cifar.check_integrity", lambda path, md5=None: Path(path).exists())
    expected = reader(tmp_path, train=True)
    images, labels = whole_train_part(load_dataset(name, tmp_path))
    np.testing.assert_array_equal(images, expected.data.transpose(0, 3, 1, 2))
    assert labels.tolist() == expected.targets


def test_a_batch_that_python_3_has_written_again_is_read_too(shrink, tmp_path):
    info = shrink("cifar100")
    parts = write_cifar(tmp_path, info, "python")
    for name in info.files:
        content = pickle.loads((tmp_path / name).read_bytes(), encoding="latin1")
        write(tmp_path / name, pickle.dumps(content, protocol=2))
    check_contents(load_dataset("cifar100", tmp_path), parts)


class OtherCodec:
    def __reduce__(self):
        import _codecs

        return _codecs.encode, ("text", "rot13")


def test_a_part_that_lacks_samples_is_refused(shrink, tmp_path):
    info = shrink("cifar100")
    write_cifar(tmp_path, info, "binary")
    path = tmp_path / info.layouts[1][0]
    path.write_bytes(path.read_bytes()[: -(2 + 3072)])
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: 39 samples, but the train part of cifar100 has 40"):
        load_dataset("cifar100", tmp_path)


@pytest.mark.parametrize("kind", ["python", "binary"])
@pytest.mark.parametrize("packing", ["", ".gz", ".xz"])
def test_a_truncated_file_of_cifar_is_refused_by_name(kind, packing, shrink, tmp_path):
    info = shrink("cifar10")
    write_cifar(tmp_path, info, kind, packing)
    name = info.layouts[0 if kind == "python" else 1][2] + packing
    path = tmp_path / name
    path.write_bytes(path.read_bytes()[:-7])
    with pytest.raises(ValueError, match=re.escape(str(path))):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize("packing", ["", ".gz", ".xz"])
@pytest.mark.parametrize("which", range(2))
def test_a_truncated_idx_file_is_refused_by_name(which, packing, shrink, tmp_path):
    info = shrink("mnist")
    write_idx(tmp_path, info, packing)
    path = tmp_path / (info.files[which] + packing)
    path.write_bytes(path.read_bytes()[:-3])
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}.*truncated"):
        load_dataset("mnist", tmp_path)


@pytest.mark.study
@pytest.mark.parametrize("packing", [".gz", ".xz"])
def test_a_file_that_unpacks_to_more_than_a_dataset_has_is_refused_and_not_held_whole(packing, tmp_path, monkeypatch):
    monkeypatch.setattr(sources, "LARGEST_FILE", 1 << 20)
    path = tmp_path / f"x-ubyte{packing}"
    path.write_bytes((gzip if packing == ".gz" else lzma).compress(bytes(64 << 20)))
    tracemalloc.start()
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: more than 1,048,576 bytes unpacked"):
        sources.unpacked(path)
    assert tracemalloc.get_traced_memory()[1] < 16 << 20
    tracemalloc.stop()


def test_idx_images_of_another_size_are_refused(shrink, tmp_path):
    write_idx(tmp_path, shrink("mnist", image_size=20))
    info = shrink("mnist", image_size=28)
    with pytest.raises(ValueError, match=rf"{info.files[0]}: items of 20 x 20 pixels, expected 28 x 28"):
        load_dataset("mnist", tmp_path)


@pytest.mark.parametrize("content", [b"", b"\x00\x00\x0d\x03", b"PK\x03\x04" * 100])
def test_a_file_that_is_no_idx_file_is_refused(content, shrink, tmp_path):
    info = shrink("mnist")
    write_idx(tmp_path, info)
    (tmp_path / info.files[0]).write_bytes(content)
    with pytest.raises(ValueError, match=r"train-images.*: not an IDX file"):
        load_dataset("mnist", tmp_path)


@pytest.mark.parametrize("kind", ["python", "binary"])
def test_a_label_out_of_range_is_refused_with_its_place(kind, shrink, tmp_path):
    write_cifar(tmp_path, shrink("cifar10"), kind)
    shrink("cifar10", num_classes=4)
    with pytest.raises(ValueError, match=r"data_batch_1\S*: label 4 of sample \d+ is outside cifar10's range 0 to 3"):
        load_dataset("cifar10", tmp_path)


class Malicious:
    def __reduce__(self):
        return print, ("this must not be printed",)


def test_a_pickle_that_would_run_code_is_refused_and_runs_none(shrink, tmp_path, capsys):
    info = shrink("cifar100")
    write_cifar(tmp_path, info, "python")
    for attack, found in ((Malicious(), r"builtins\.print"), (OtherCodec(), "rot13")):
        write(tmp_path / info.files[0], pickle.dumps({"data": attack, "fine_labels": []}, protocol=4))
        with pytest.raises(ValueError, match=rf"cifar-100-python/train: .*{found}, which a dataset file never needs"):
            load_dataset("cifar100", tmp_path)
    assert not capsys.readouterr().out


@pytest.mark.parametrize(
    "content",
    [{"data": np.zeros((3, 3072), np.uint8)}, {"data": np.zeros((3, 9), np.uint8), "fine_labels": [0, 1, 2]}, [1, 2]],
    ids=["no labels", "other rows", "no dictionary"],
)
def test_a_pickle_of_something_else_is_refused_by_name(content, shrink, tmp_path):
    info = shrink("cifar100")
    write_cifar(tmp_path, info, "python")
    write(tmp_path / info.files[0], pickle.dumps(content, protocol=2))
    with pytest.raises(ValueError, match="cifar-100-python/train: "):
        load_dataset("cifar100", tmp_path)


def test_a_download_is_never_implied(monkeypatch, tmp_path):
    monkeypatch.setattr("trainables.data.download.download_files", lambda *_: pytest.fail("it was not asked for"))
    with pytest.raises(ValueError, match="--download"):
        load_dataset("cifar10", tmp_path)


def test_a_download_without_network_says_so(tmp_path, monkeypatch):
    def offline(*_args, **_options):
        raise OSError("no route to host")

    monkeypatch.setattr("urllib.request.urlopen", offline)
    with pytest.raises(ValueError, match=rf"mnist could not be downloaded to {tmp_path}/data: "):
        load_dataset("mnist", tmp_path / "data", download=True)


def test_what_torchvision_cannot_fetch_is_not_downloaded(tmp_path):
    assert not DATASETS["tiny_imagenet"].download
    with pytest.raises(ValueError, match="tiny_imagenet cannot be downloaded; put its files under"):
        load_dataset("tiny_imagenet", tmp_path, download=True)
