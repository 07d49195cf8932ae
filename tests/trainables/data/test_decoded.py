import os
import subprocess
import sys

import numpy as np
import pytest
import torch

from tests.trainables.data.conftest import write_cifar, write_idx
from trainables.data import load_dataset
from trainables.data.views import ViewedImages, view_table

CPU = torch.device("cpu")


@pytest.fixture
def cifar(shrink, tmp_path):
    write_cifar(tmp_path, shrink("cifar100"), "binary")
    return tmp_path


def entry(cache):
    (folder,) = (cache / "datasets").glob("cifar100-train-*")
    return folder


def batch(root):
    dataset = load_dataset("cifar100", root)
    viewed = dataset.viewed(view_table(dataset.info, "views"), CPU)
    return dataset, viewed.batch(torch.arange(30), torch.arange(30) * 5)


def test_batches_of_mapped_views_are_those_of_views_in_memory(cifar):
    dataset, found = batch(cifar)
    table = view_table(dataset.info, "views")
    assert torch.equal(found, ViewedImages(dataset.train.images, table).batch(torch.arange(30), torch.arange(30) * 5))


def test_mean_and_deviation_are_those_of_the_train_split(cifar):
    dataset, _ = batch(cifar)
    pixels = dataset.train.images.numpy().astype(np.float64) / 255
    assert dataset.mean == pytest.approx(pixels.mean((0, 2, 3)), rel=1e-14)
    assert dataset.std == pytest.approx(pixels.std((0, 2, 3)), rel=1e-14)


def test_a_dataset_is_decoded_once(cifar, monkeypatch):
    first, expected = batch(cifar)
    monkeypatch.setattr("trainables.data.decoded.read_files", lambda *_: pytest.fail("decoded again"))
    monkeypatch.setattr("trainables.data.decoded.padded_pixels", lambda *_: pytest.fail("padded again"))
    again, found = batch(cifar)
    assert again.digest == first.digest
    assert torch.equal(found, expected)


@pytest.mark.parametrize("name", ["images.arrow", "samples.safetensors", "views"])
@pytest.mark.parametrize("damage", ["flip", "truncate", "empty"])
def test_a_damaged_file_of_the_cache_is_made_anew(name, damage, cifar, own_cache):
    first, expected = batch(cifar)
    (path,) = entry(own_cache).glob(f"{name}*")
    content = bytearray(path.read_bytes())
    if damage == "flip":
        content[len(content) // 2] ^= 1
    path.unlink()  # mapped files are replaced, never changed in place
    path.write_bytes({"flip": content, "truncate": content[:-100], "empty": b""}[damage])
    again, found = batch(cifar)
    assert again.digest == first.digest
    assert torch.equal(found, expected)
    assert torch.equal(again.train.images, first.train.images)


def test_other_files_under_the_same_root_are_another_dataset(cifar, own_cache, shrink):
    first, _ = batch(cifar)
    info = shrink("cifar100")
    path = cifar / info.layouts[1][0]
    content = bytearray(path.read_bytes())
    content[100] ^= 1
    path.write_bytes(content)
    second, _ = batch(cifar)
    assert second.digest != first.digest
    assert len(list((own_cache / "datasets").glob("cifar100-train-*"))) == 2


def test_a_read_only_root_and_a_cache_that_cannot_be_written_are_enough(cifar, tmp_path, monkeypatch):
    _, expected = batch(cifar)
    blocked = tmp_path / "file"
    blocked.touch()
    monkeypatch.setenv("PESFKD_CACHE", str(blocked / "cache"))  # even root cannot make a folder there
    before = sorted(cifar.rglob("*"))
    with pytest.warns(UserWarning, match=r"cannot cache decoded data there .*each process decodes its own copy"):
        dataset, found = batch(cifar)
    with pytest.warns(UserWarning, match="cannot cache decoded data there"):
        assert dataset.test.images.shape == (20, 3, 32, 32)
    assert torch.equal(found, expected)
    assert sorted(cifar.rglob("*")) == before


def test_the_seed_of_the_split_shares_the_decoded_files(cifar, own_cache):
    splits = [load_dataset("cifar100", cifar, seed=seed) for seed in (0, 1)]
    for dataset in splits:
        dataset.viewed(view_table(dataset.info, "views"), CPU)
    assert not torch.equal(splits[0].train.indices, splits[1].train.indices)
    assert splits[0].digest != splits[1].digest
    assert len(list(entry(own_cache).iterdir())) == 4  # images, samples, views, lock


def test_the_test_part_is_not_decoded_before_it_is_asked_for(shrink, tmp_path, own_cache):
    write_idx(tmp_path, shrink("fashion_mnist"))
    dataset = load_dataset("fashion_mnist", tmp_path)
    assert not list((own_cache / "datasets").glob("*test*"))
    _ = dataset.test
    assert list((own_cache / "datasets").glob("fashion_mnist-test-*"))


@pytest.mark.launcher
def test_processes_that_start_together_decode_once(cifar, own_cache):
    program = (
        "import sys, dataclasses, trainables.data.decoded as d, trainables.data.registry as r\n"
        "r.DATASETS['cifar100'] = dataclasses.replace(r.DATASETS['cifar100'], split_sizes=(30, 10, 20))\n"
        "read = d.read_files\n"
        "d.read_files = lambda *a: print('decoded') or read(*a)\n"
        "print(__import__('trainables.data').data.load_dataset('cifar100', sys.argv[1]).digest)\n"
    )
    started = [
        subprocess.Popen(
            [sys.executable, "-c", program, str(cifar)], stdout=subprocess.PIPE, text=True,
            env={**os.environ, "PESFKD_CACHE": str(own_cache)},
        )
        for _ in range(3)
    ]  # fmt: skip
    lines = [line for process in started for line in process.communicate(timeout=240)[0].split()]
    assert lines.count("decoded") == 1
    assert len(set(lines) - {"decoded"}) == 1
