import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.trainables.data.text.conftest import TEST, TRAIN, texts_of
from trainables.data import load_dataset
from trainables.data.sources import DataError
from trainables.data.text import dataset as module
from trainables.data.text.dataset import TextDataset
from trainables.data.text.tokeniser import load_tokeniser
from trainables.spec.datasets import DATASETS, check_files
from trainables.spec.glue import GLUE_TASKS


@pytest.mark.parametrize("name", GLUE_TASKS)
def test_a_task_becomes_three_splits_of_tokens(name, small_task):
    root = small_task(name)
    data = load_dataset(f"glue:{name}", root)
    assert isinstance(data, TextDataset)
    task, info = data.task, data.info
    assert (len(data.train), len(data.validation), len(data.test)) == info.split_sizes
    assert sorted(torch.cat([data.train.indices, data.validation.indices]).tolist()) == list(range(TRAIN))
    for part, split in ((0, data.train), (0, data.validation), (1, data.test)):
        columns, labels = texts_of(task, (TRAIN, TEST)[part], seed=part)
        rows = split.indices.tolist()
        assert split.labels.tolist() == [labels[row] for row in rows]
        chosen = torch.arange(len(split))[:3]
        batch = split.batch(chosen)
        for ids, row in zip(batch[:, 0].tolist(), rows, strict=False):
            expected = data.tokeniser.backend.encode(*(column[row] for column in columns)).ids[: data.max_length]
            assert ids[: len(expected)] == expected
        assert torch.equal(split.lengths[chosen], (batch[:, 0] != 0).sum(1))
    assert data.vocabulary_size == data.tokeniser.vocabulary_size
    with pytest.raises(TypeError, match="no images"):
        _ = data.train.images


def test_the_files_may_be_parquet_and_give_the_same_dataset(small_task, tmp_path):
    digests = {
        load_dataset("glue:mrpc", small_task("mrpc", kind=kind, root=tmp_path / kind)).digest
        for kind in ("tsv", "parquet")
    }
    assert len(digests) == 1


def test_the_digest_sees_texts_split_and_tokeniser(small_task, tmp_path):
    root = small_task("sst2")
    one, other = load_dataset("glue:sst2", root), load_dataset("glue:sst2", root, seed=1)
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "tokenizer.json").write_text(other.tokeniser.json)
    borrowed = load_dataset("glue:sst2", root, tokeniser=tmp_path / "model")
    assert borrowed.tokeniser.digest == other.tokeniser.digest == load_tokeniser(tmp_path / "model").digest
    changed = load_dataset("glue:sst2", small_task("sst2", root=tmp_path / "changed", seed=5))
    assert len({each.digest for each in (one, other, borrowed, changed)}) == 4
    assert load_dataset("glue:sst2", root).digest == one.digest


def test_another_split_draws_whole_sources_again_and_has_the_same_test_samples(small_task):
    root = small_task("sst2")
    first, other = (load_dataset("glue:sst2", root, split_number=number) for number in (0, 1))
    assert not torch.equal(first.validation.indices, other.validation.indices)
    assert first.digest != other.digest
    for data in (first, other):
        assert not np.isin(data.train.indices.numpy(), data.validation.indices.numpy()).any()
        assert len(data.train) + len(data.validation) == len(first.train) + len(first.validation)
    assert torch.equal(first.test.labels, other.test.labels)
    assert torch.equal(first.test.indices, other.test.indices)
    assert load_dataset("glue:sst2", root, split_number=1).digest == other.digest


def test_the_test_split_is_not_read_before_it_is_asked_for(small_task):
    root = small_task("sst2")
    (root / "SST-2" / "dev.tsv").write_text("sentence\tlabel\nbroken\n")
    data = load_dataset("glue:sst2", root)
    assert len(data.train.batch(torch.arange(4))) == 4
    with pytest.raises(DataError, match=r"dev\.tsv, row 2: 1 cells"):
        _ = data.test


def test_the_tokeniser_is_trained_on_the_train_split_alone(small_task, monkeypatch):
    seen = []
    monkeypatch.setattr(module, "train_tokeniser", lambda texts, **_: seen.append(texts) or _trained(texts))
    data = load_dataset("glue:rte", small_task("rte"))
    columns, _ = texts_of(data.task, TRAIN, seed=0)
    assert seen[0] == [column[row] for column in columns for row in data.train.indices.tolist()]


def _trained(texts):
    from trainables.data.text.tokeniser import train_tokeniser

    return train_tokeniser(texts)


def test_texts_are_read_trained_on_and_tokenised_once(small_task, monkeypatch):
    root = small_task("cola")
    first = load_dataset("glue:cola", root)
    _ = first.test
    for name in ("read_samples", "train_tokeniser", "tokenise"):
        monkeypatch.setattr(module, name, None)
    again = load_dataset("glue:cola", root)
    assert again.digest == first.digest
    for split in ("train", "validation", "test"):
        rows = torch.arange(4)
        assert torch.equal(getattr(again, split).batch(rows), getattr(first, split).batch(rows))


@pytest.mark.parametrize("suffix", ["*.arrow", "tokens-*.safetensors", "samples.safetensors", "*.json"])
def test_what_is_damaged_in_the_cache_is_made_anew(suffix, small_task, own_cache):
    root = small_task("sst2")
    first = load_dataset("glue:sst2", root)
    (path,) = own_cache.rglob(suffix)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(content[: len(content) // 2])
    again = load_dataset("glue:sst2", root)
    assert path.read_bytes() == content
    assert again.digest == first.digest
    assert torch.equal(again.train.batch(torch.arange(9)), first.train.batch(torch.arange(9)))


def test_where_the_cache_cannot_be_written_each_process_keeps_its_own(small_task, monkeypatch, tmp_path):
    root = small_task("sst2")
    kept = load_dataset("glue:sst2", root)
    (tmp_path / "file").touch()
    monkeypatch.setenv("PESFKD_CACHE", str(tmp_path / "file"))
    with pytest.warns(UserWarning, match="cannot cache tokens there"):
        own = load_dataset("glue:sst2", root)
    assert own.digest == kept.digest
    assert torch.equal(own.train.batch(torch.arange(9)), kept.train.batch(torch.arange(9)))


@pytest.mark.launcher
def test_processes_that_begin_at_once_tokenise_once(small_task, tmp_path, own_cache):
    root = small_task("sst2")
    program = (
        "import dataclasses, sys; from pathlib import Path\n"
        "from trainables.spec.datasets import DATASETS as d\n"
        "i = d['glue:sst2']; t = dataclasses.replace(i.task, rows=(40, 12))\n"
        "d['glue:sst2'] = dataclasses.replace(i, task=t, split_sizes=t.split_sizes)\n"
        "from trainables.data import load_dataset\n"
        "print(load_dataset('glue:sst2', sys.argv[1]).digest)\n"
    )
    command = [sys.executable, "-W", "error", "-c", program, str(root)]
    running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=os.environ) for _ in range(2)]
    assert {each.communicate()[0].strip() for each in running} == {load_dataset("glue:sst2", root).digest}
    assert len(list(own_cache.rglob("*.arrow"))) == 1


def test_files_in_the_hubs_cache_are_found_without_a_data_root(small_task, tmp_path, monkeypatch):
    from huggingface_hub import constants

    snapshot = tmp_path / "hub" / "datasets--nyu-mll--glue" / "snapshots" / "abc"
    small_task("rte", kind="parquet", root=snapshot)
    refs = snapshot.parents[1] / "refs"
    refs.mkdir()
    (refs / "main").write_text("abc")
    with pytest.raises(ValueError, match=r"without a data root: RTE/train\.tsv, RTE/dev\.tsv are missing"):
        check_files(DATASETS["glue:rte"], None)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    check_files(DATASETS["glue:rte"], None)
    assert len(load_dataset("glue:rte", None).test) == TEST


def test_a_batch_on_another_device_is_the_same(small_task):
    split = load_dataset("glue:sst2", small_task("sst2")).train
    moved = split.to(torch.device("cpu"))
    assert torch.equal(moved.batch(torch.arange(5)), split.batch(torch.arange(5)))


@pytest.mark.study
def test_sst2_is_read_whole(data_root: Path):
    data = load_dataset("glue:sst2", data_root)
    assert (len(data.train), len(data.validation), len(data.test)) == (62_349, 5_000, 872)
    assert data.source_counts == {"sources": 6_722, "validation_sources": 508}
    assert data.validation.labels.bincount().tolist() == [2_211, 2_789]
    assert data.vocabulary_size == 8_000
    counts = torch.cat([data.train.labels, data.validation.labels]).bincount().tolist()
    assert counts == [29_780, 37_569]
    assert data.test.labels.bincount().tolist() == [428, 444]
    lengths = data.train.lengths.numpy()
    assert 3 <= lengths.min() <= lengths.max() <= 128
    unknown = data.tokeniser.backend.token_to_id("[UNK]")
    assert np.mean(data.test.tokens.ids.numpy() == unknown) < 0.001
