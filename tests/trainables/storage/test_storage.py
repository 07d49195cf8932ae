import os

import pytest
import safetensors.torch
import torch

from trainables.storage.atomic import StoredFileError, write_atomically
from trainables.storage.tensors import read_tensors, tensors_digest, write_tensors

TENSORS = {
    "weight": torch.arange(6, dtype=torch.float32).view(2, 3),
    "count": torch.tensor(7),
    "empty": torch.zeros(0, 4),
}
METADATA = {"epoch": 3, "name": "é", "nested": {"rates": [0.1, 0.05]}}


def test_what_was_written_is_read(tmp_path):
    path = tmp_path / "new" / "file.safetensors"
    write_tensors(path, TENSORS, METADATA)
    tensors, metadata = read_tensors(path)
    assert metadata == METADATA
    assert set(tensors) == set(TENSORS)
    for name, tensor in TENSORS.items():
        assert torch.equal(tensors[name], tensor)
        assert tensors[name].dtype == tensor.dtype


def test_equal_contents_make_equal_files(tmp_path):
    for name in ("a", "b", "c"):
        write_tensors(tmp_path / name, TENSORS, METADATA)
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_a_safetensors_file_of_somebody_else_is_refused(tmp_path):
    safetensors.torch.save_file(TENSORS, tmp_path / "file")
    with pytest.raises(StoredFileError, match="the stored checksum is none"):
        read_tensors(tmp_path / "file")


def test_tensors_that_share_memory_or_are_views_are_stored_as_what_they_show(tmp_path):
    base = torch.arange(12.0).view(3, 4)
    write_tensors(tmp_path / "file", {"a": base, "b": base, "c": base.T, "d": base[1]}, {})
    tensors, _ = read_tensors(tmp_path / "file")
    assert torch.equal(tensors["b"], base)
    assert torch.equal(tensors["c"], base.T)
    assert torch.equal(tensors["d"], base[1])


def test_a_flip_of_any_byte_is_refused_or_changes_nothing(tmp_path):
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, METADATA)
    content = path.read_bytes()
    refused = 0
    for position in range(len(content)):
        path.write_bytes(content[:position] + bytes([content[position] ^ 1]) + content[position + 1 :])
        try:
            tensors, metadata = read_tensors(path)
        except StoredFileError:
            refused += 1
        else:
            assert metadata == METADATA
            assert tensors_digest(tensors) == tensors_digest(TENSORS)
    assert refused > 0.95 * len(content)


@pytest.mark.parametrize("kept", [0, 4, 100, -1])
def test_a_truncated_file_is_refused_by_name(tmp_path, kept):
    path = tmp_path / "file.safetensors"
    write_tensors(path, TENSORS, METADATA)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(StoredFileError, match=r"file\.safetensors"):
        read_tensors(path)


def test_a_file_that_is_not_there_is_named(tmp_path):
    with pytest.raises(StoredFileError, match=r"nowhere\.safetensors: there is no such file"):
        read_tensors(tmp_path / "nowhere.safetensors")


def test_a_write_that_fails_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "file"
    write_atomically(path, b"old")

    def fail(descriptor):
        raise OSError("disk full")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="disk full"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


def test_a_digest_sees_names_types_shapes_and_values_and_not_the_order():
    ones = torch.ones(4)
    digests = {
        tensors_digest({"a": ones}),
        tensors_digest({"b": ones}),
        tensors_digest({"a": ones.view(2, 2)}),
        tensors_digest({"a": ones.view(torch.int32)}),
        tensors_digest({"a": 2 * ones}),
    }
    assert len(digests) == 5
    both = {"a": ones, "b": 2 * ones}
    assert tensors_digest(both) == tensors_digest(dict(reversed(both.items())))
