"""Teacher outputs on storage shared by all nodes: an S3-compatible server on loopback, and a folder by URI."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.conftest import S3
from tests.trainables.conftest import MakeStore, cut, flip, slot_path
from trainables.storage import remote_folder
from trainables.storage.remote_folder import RemoteFolder
from trainables.teacher_outputs.shard import Shard
from trainables.teacher_outputs.store import TeacherOutputsStore

pytestmark = pytest.mark.study

TRAIN, VALIDATION = 1077, 360
OnNode = Callable[[str], TeacherOutputsStore]


@pytest.fixture
def bucket(s3: S3) -> str:
    return s3.new_bucket()


@pytest.fixture
def on_node(make_store: MakeStore, s3: S3, bucket: str, tmp_path: Path) -> OnNode:
    """Return a function that opens the store as a process of a node: shared storage, and a folder for each node."""

    def make(node: str, **changes: object) -> TeacherOutputsStore:
        return make_store(folder=tmp_path / node, remote=RemoteFolder(s3.uri(f"{bucket}/outputs")), **changes)

    return make


def test_a_node_computes_a_slot_and_the_others_fetch_it_once(on_node, s3, bucket):
    first, second = on_node("one"), on_node("two")
    rows = first.slot(0).rows
    assert list(s3.objects(bucket)) == [f"outputs/{first.key}/slot-0000.arrow"]
    found = second.slot(0)
    assert found.forwards == 0
    assert torch.equal(found.rows, rows)
    assert slot_path(second, 0).read_bytes() == s3.objects(bucket)[f"outputs/{first.key}/slot-0000.arrow"]
    s3.put(bucket, f"outputs/{first.key}/slot-0000.arrow", b"not asked for any more")
    again = on_node("two").slot(0)
    assert (again.forwards, on_node("two").take_notes()) == (0, [])
    assert torch.equal(again.rows, rows)


def test_a_folder_named_by_a_uri_serves_as_well(make_store, tmp_path):
    uri = f"file://{tmp_path}/shared"
    rows = make_store(folder=tmp_path / "one", remote=RemoteFolder(uri)).slot(0).rows
    found = make_store(folder=tmp_path / "two", remote=RemoteFolder(uri)).slot(0)
    assert found.forwards == 0
    assert torch.equal(found.rows, rows)
    assert not list((tmp_path / "shared").rglob("*.partial"))


@pytest.mark.parametrize("damage", [cut, flip, lambda _: b"something else"])
def test_a_damaged_object_is_refused_named_and_built_anew(on_node, s3, bucket, damage):
    store = on_node("one")
    expected = store.slot(0).rows
    name = f"outputs/{store.key}/slot-0000.arrow"
    content = s3.objects(bucket)[name]
    s3.put(bucket, name, damage(content))
    second = on_node("two")
    found = second.slot(0)
    assert found.forwards == TRAIN
    assert torch.equal(found.rows, expected)
    (note,) = second.take_notes()
    assert f"s3://{bucket}/outputs/{store.key}/slot-0000.arrow" in note
    assert "the file is rebuilt" in note
    assert s3.objects(bucket) == {name: content}
    assert not [path for path in second.folder.iterdir() if path.suffix == ".partial"]


def test_an_object_of_another_slot_is_refused_and_built_anew(on_node, s3, bucket):
    store = on_node("one")
    store.slot(1)
    content = s3.objects(bucket)[f"outputs/{store.key}/slot-0001.arrow"]
    s3.put(bucket, f"outputs/{store.key}/slot-0000.arrow", content)
    second = on_node("two")
    assert second.slot(0).forwards == TRAIN
    assert "slot is 1, expected 0" in second.take_notes()[0]


def test_a_damaged_copy_is_fetched_again(on_node):
    store = on_node("one")
    store.slot(0)
    path = slot_path(store, 0)
    content = path.read_bytes()
    path.unlink()
    path.write_bytes(flip(content))
    again = on_node("one")
    assert again.slot(0).forwards == 0
    assert path.read_bytes() == content
    assert "damaged" in again.take_notes()[0]


def test_what_is_missing_is_what_storage_lacks_and_a_copy_is_sent_there(on_node, s3, bucket, make_store, tmp_path):
    make_store(folder=tmp_path / "one").slot(0)  # left by a study without storage
    store = on_node("one")
    assert store.missing(2) == [Shard(None, 0, VALIDATION), Shard(0, 0, TRAIN), Shard(1, 0, TRAIN)]
    assert store.fill(Shard(0, 0, TRAIN)) == (0, True)
    assert on_node("two").missing(2) == [Shard(None, 0, VALIDATION), Shard(1, 0, TRAIN)]
    assert on_node("two").slot(0).forwards == 0


def test_ranges_filled_on_two_nodes_are_put_together_on_a_third(on_node, s3, bucket, make_store, tmp_path):
    for node, rows in (("one", (0, 512)), ("two", (512, 1024)), ("one", (1024, 1077))):
        assert on_node(node, rows_per_shard=512).fill(Shard(0, *rows)).stored
    third = on_node("three", rows_per_shard=512)
    assert third.missing(1)[1:] == [Shard(0, 0, TRAIN)]
    assert third.fill(Shard(0, 0, TRAIN)) == (0, True)
    assert list(s3.objects(bucket)) == [f"outputs/{third.key}/slot-0000.arrow"]
    assert torch.equal(on_node("four").slot(0).rows, make_store(folder=tmp_path / "else").slot(0).rows)


def test_storage_that_is_gone_costs_no_trial(make_store, s3, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_folder, "_SECONDS_BETWEEN_TRIES", ())
    store = make_store(folder=tmp_path / "one", remote=RemoteFolder(s3.uri("no-such-bucket")))
    found = store.slot(0)
    assert found.forwards == TRAIN
    assert slot_path(store, 0).exists()  # the node's copy serves its trials
    assert all("no-such-bucket" in note for note in store.take_notes())
    assert store.fill(Shard(1, 0, TRAIN)) == (TRAIN, False)
