import hashlib
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.datasets import load_digits

from trainables.data import load_dataset
from trainables.data.dataset import Dataset, digest_of, stratified_split
from trainables.run.identity import check_fit
from trainables.spec.datasets import DATASETS
from trainables.spec.trial import TrialConfig


def test_the_digits_have_the_shapes_that_the_registry_says(digits):
    info = DATASETS["digits"]
    splits = (digits.train, digits.validation, digits.test)
    assert tuple(len(split) for split in splits) == info.split_sizes
    for split in splits:
        assert split.images.dtype == torch.uint8
        assert split.images.shape[1:] == (info.channels, info.image_size, info.image_size)
        assert split.labels.dtype == torch.int64
    assert digits.num_classes == info.num_classes == 10


def test_the_splits_are_disjoint_and_cover_everything(digits):
    indices = torch.cat([split.indices for split in (digits.train, digits.validation, digits.test)])
    assert sorted(indices.tolist()) == list(range(1797))


def test_each_sample_is_scikit_learns_times_fifteen(digits):
    source = load_digits()
    for split in (digits.train, digits.validation, digits.test):
        expected = source.images[split.indices.numpy()] * 15
        np.testing.assert_array_equal(split.images[:, 0].numpy(), expected)
        np.testing.assert_array_equal(split.labels.numpy(), source.target[split.indices.numpy()])


def test_each_class_has_its_share_of_every_split_to_within_a_sample(digits):
    everything = np.bincount(load_digits().target)
    for split in (digits.train, digits.validation, digits.test):
        share = len(split) / 1797
        assert np.abs(np.bincount(split.labels.numpy()) - everything * share).max() <= 1.5


def test_the_same_seed_splits_the_same_and_another_differently(digits):
    again, other = load_dataset("digits", None), load_dataset("digits", None, seed=1)
    assert torch.equal(again.train.indices, digits.train.indices)
    assert again.digest == digits.digest
    assert not torch.equal(other.train.indices, digits.train.indices)
    assert other.digest != digits.digest


def test_another_split_draws_train_and_validation_again_and_keeps_the_test_split(digits):
    others = [load_dataset("digits", None, split_number=number) for number in (1, 2)]
    assert len({digits.digest, *(other.digest for other in others)}) == 3
    everything = np.bincount(load_digits().target)
    for other in others:
        assert torch.equal(other.test.indices, digits.test.indices)
        assert not torch.equal(other.train.indices, digits.train.indices)
        assert (len(other.train), len(other.validation)) == (len(digits.train), len(digits.validation))
        indices = torch.cat([split.indices for split in (other.train, other.validation, other.test)])
        assert sorted(indices.tolist()) == list(range(1797))
        for split in (other.train, other.validation):
            assert np.abs(np.bincount(split.labels.numpy()) - everything * len(split) / 1797).max() <= 1.5
    shared = np.isin(others[0].validation.indices.numpy(), others[1].validation.indices.numpy()).mean()
    assert 0.1 < shared < 0.4, "a quarter of the samples of train and validation validate"
    again = load_dataset("digits", None, split_number=1)
    assert again.digest == others[0].digest
    assert load_dataset("digits", None, seed=1, split_number=1).digest != again.digest


def test_a_trial_is_not_run_on_another_split_than_its_own(digits):
    config = TrialConfig(method="ce", split_number=1)
    with pytest.raises(ValueError, match="the trial has split_number 1, the dataset has split 0"):
        check_fit(config, digits, None)
    check_fit(config, load_dataset("digits", None, split_number=1), None)


def test_the_digest_is_the_one_that_stored_teachers_were_trained_on(digits):
    # Recorded once. Another value means that content or split changed, and then no stored teacher fits any more.
    assert digits.digest == "25351690f6e4c73594616de29df299852e9e8fedef950d132b53eeeb45655171"


def test_a_digest_sees_content_type_and_shape():
    array = np.arange(6, dtype=np.int64)
    digests = {
        digest_of("a", array),
        digest_of("b", array),
        digest_of("a", array + 1),
        digest_of("a", array.reshape(2, 3)),
        digest_of("a", array.astype(np.int32)),
        digest_of("a", array[:3], array[3:]),
    }
    assert len(digests) == 6
    assert digest_of("a", array.astype(">i8")) == digest_of("a", array)
    assert all(len(digest) == hashlib.sha256().digest_size * 2 for digest in digests)


def test_mean_and_deviation_are_those_of_the_train_split(digits):
    pixels = digits.train.images.numpy().astype(np.float64) / 255
    assert digits.mean == pytest.approx([pixels.mean()])
    assert digits.std == pytest.approx([pixels.std()])


def test_the_test_split_is_not_built_before_it_is_asked_for(digits):
    calls = []

    def read_test():
        calls.append(1)
        return digits.validation

    dataset = Dataset(
        digits.info, train=digits.train, validation=digits.validation, read_test=read_test, seed=0, digest="x"
    )
    assert dataset.mean
    assert dataset.std
    assert not calls
    assert dataset.test is dataset.test
    assert calls == [1]


@pytest.mark.parametrize("sizes", [(60, 20, 20), (61, 20, 19), (3, 3, 94), (94, 3, 3)])
def test_a_stratified_split_has_exactly_the_sizes_asked_for(sizes):
    labels = np.repeat([0, 1, 2], [70, 25, 5])
    splits = stratified_split(labels, sizes, seed=3)
    assert tuple(len(split) for split in splits) == sizes
    assert sorted(np.concatenate(splits)) == list(range(100))


def test_a_dataset_whose_files_are_missing_names_them_and_the_root(tmp_path, monkeypatch):
    files = ("letters/train.bin", "letters/test.bin")
    info = replace(DATASETS["mnist"], name="letters", layouts=(files,), download=False)
    monkeypatch.setitem(DATASETS, "letters", info)
    (tmp_path / "letters").mkdir()
    (tmp_path / "letters/train.bin.xz").touch()
    with pytest.raises(ValueError, match=r": letters/test\.bin is missing \(") as caught:
        load_dataset("letters", tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "letters/train.bin" not in str(caught.value)
    assert "--download" not in str(caught.value)
    with pytest.raises(ValueError, match=r"without a data root.*letters/train\.bin"):
        load_dataset("letters", None)


def test_an_unknown_dataset_is_refused_with_the_nearest_name():
    with pytest.raises(ValueError, match="'digit'; did you mean 'digits'"):
        load_dataset("digit", None)
