"""Files of a study between the driver and nodes that share no folder, on an S3-compatible server."""

import json
import time
from pathlib import Path

import pytest

from tests.conftest import S3
from tests.trainables.conftest import small_config
from trainables.run.checkpoint import CHECKPOINT_FILE
from trainables.storage.remote_folder import RemoteFolder, RemoteFolderError
from trainables.storage.uris import joined
from trainables.students.file import example_path
from trainables.teacher.files import load_teacher
from trainables.tune import travel
from trainables.tune.session import begin_run, save_student_if_requested, take_notes
from trainables.tune.travel import (
    TrainingCopy,
    Travelling,
    fetch_student,
    localised,
    pack_teacher,
    unpack,
    unpacked,
    upload_student,
)

pytestmark = pytest.mark.study


@pytest.fixture(autouse=True)
def cache(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setenv("PESFKD_CACHE", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def storage(s3: S3) -> str:
    return s3.uri(f"{s3.new_bucket()}/runs")


def test_a_name_is_added_to_a_uri_before_the_query():
    assert joined("s3://bucket/a/?scheme=http", "b/c.x") == "s3://bucket/a/b/c.x?scheme=http"
    assert joined("file:///folder", "b") == "file:///folder/b"


def test_a_teacher_arrives_on_another_node_whole_and_is_written_once(teacher_file, digits, cache):
    folder = unpacked(pack_teacher(teacher_file))
    assert folder.parent == cache / "teachers"
    copy = folder / teacher_file.name
    assert copy.read_bytes() == teacher_file.read_bytes()
    load_teacher(copy, small_config(), digits)
    written = copy.stat().st_mtime_ns
    assert unpacked(pack_teacher(teacher_file)) == folder
    assert copy.stat().st_mtime_ns == written
    copy.write_bytes(b"damaged")
    assert unpacked(pack_teacher(teacher_file)) == folder
    assert copy.read_bytes() == teacher_file.read_bytes()


def test_files_next_to_a_teacher_travel_along_and_locks_do_not(tmp_path):
    teacher = tmp_path / "ab.safetensors"
    (tmp_path / "ab.tokeniser").mkdir()
    (tmp_path / "ab.training").mkdir()
    for name in (
        "ab.safetensors",
        "ab.cost.json",
        "ab.lock",
        "ab.tokeniser/x.json",
        "ab.training/t",
        "abc.safetensors",
    ):
        (tmp_path / name).write_text(name)
    files = pack_teacher(teacher)
    assert set(files) == {"ab.safetensors", "ab.cost.json", "ab.tokeniser/x.json"}
    unpack(files, tmp_path / "there")
    assert (tmp_path / "there/ab.tokeniser/x.json").read_text() == "ab.tokeniser/x.json"
    assert unpacked(files) != unpacked({**files, "ab.cost.json": b"other"})


def test_a_trial_on_another_node_uses_the_copies_there():
    paths = [f"/driver/{name}.safetensors" for name in "abc"]
    places = {path: Path(f"/node/{number}") for number, path in enumerate(paths)}
    settings = {
        "teacher_path": paths[0],
        "own_teachers": {"vid": paths[1]},
        "further_teachers": [{"teacher_number": 1, "split_number": 0, "paths": {"": paths[2]}}],
        "student_path": "/driver/study/students/s-0001.safetensors",
        "device": "cpu",
    }
    found = localised(settings, Travelling("s3://bucket/runs?scheme=http", "id", {}), places)
    assert found == {
        "teacher_path": "/node/0/a.safetensors",
        "own_teachers": {"vid": "/node/1/b.safetensors"},
        "further_teachers": [{"teacher_number": 1, "split_number": 0, "paths": {"": "/node/2/c.safetensors"}}],
        "student_path": "s3://bucket/runs/students/id/s-0001.safetensors?scheme=http",
        "device": "cpu",
    }
    alone = {"teacher_path": None, "student_path": None}
    assert localised(alone, Travelling("s3://b", "id", {}), {})["teacher_path"] is None


def test_a_confirmed_student_comes_to_the_driver_and_leaves_storage(teacher_file, storage, tmp_path):
    config = small_config(epochs=1).model_dump(mode="json")
    run = begin_run({"config": config, "data_root": None, "teacher_path": str(teacher_file), "device": "cpu"})
    run.train_epoch()
    travelling = Travelling(storage, "id", {})
    settings = localised({"student_path": "/driver/s-1.safetensors"}, travelling, {})
    save_student_if_requested(run, settings["student_path"])
    assert take_notes() == []
    save_student_if_requested(run, str(tmp_path / "here.safetensors"))
    student = tmp_path / "students" / "s-1.safetensors"
    fetch_student(travelling.students(), student)
    assert student.read_bytes() == (tmp_path / "here.safetensors").read_bytes()
    assert example_path(student).read_bytes() == (tmp_path / "here.example.safetensors").read_bytes()
    assert travelling.students().names("") == set()
    with pytest.raises(FileNotFoundError):
        fetch_student(travelling.students(), tmp_path / "students" / "s-2.safetensors")
    assert sorted(path.name for path in student.parent.iterdir()) == ["s-1.example.safetensors", "s-1.safetensors"]


def test_a_student_waits_for_storage_that_is_away_and_not_for_one_that_refuses(tmp_path, monkeypatch):
    student = tmp_path / "s.safetensors"
    student.write_bytes(b"student")
    example_path(student).write_bytes(b"example")
    tries = []

    def write_from(self, name, path):
        tries.append(name)
        if len(tries) < 3:
            raise RemoteFolderError("away")

    monkeypatch.setattr(RemoteFolder, "write_from", write_from)
    monkeypatch.setattr(travel, "_SECONDS_BETWEEN_TRIES", 0.01)
    upload_student(student, "s3://bucket/students/t-1.safetensors")
    assert tries == ["t-1.example.safetensors"] * 3 + ["t-1.safetensors"]

    def refuse(self, name, path):
        tries.append(name)
        raise RemoteFolderError("no such bucket", is_final=True)

    monkeypatch.setattr(RemoteFolder, "write_from", refuse)
    began, tries[:] = time.monotonic(), []
    with pytest.raises(RemoteFolderError, match="no such bucket"):
        upload_student(student, "s3://bucket/students/t-1.safetensors")
    assert len(tries) == 1
    assert time.monotonic() - began < 60


def test_a_missing_bucket_is_final_and_a_server_that_is_away_is_not(s3, monkeypatch):
    monkeypatch.setattr("trainables.storage.remote_folder._SECONDS_BETWEEN_TRIES", ())
    with pytest.raises(RemoteFolderError) as refused:
        RemoteFolder(s3.uri("bucket-that-is-not-there/x")).check()
    assert refused.value.is_final


def test_a_teachers_training_goes_on_on_another_node_from_the_copy(storage, tmp_path, monkeypatch):
    one, other = tmp_path / "one/ab.training", tmp_path / "other/ab.training"
    one.mkdir(parents=True)
    monkeypatch.setattr(travel, "_SECONDS_BETWEEN_COPIES", 0.0)
    seen = []
    report = TrainingCopy(storage, "id", one).copy_after(lambda *progress: seen.append(progress))
    (one / CHECKPOINT_FILE).write_bytes(b"after two epochs")
    report(2, 9, 0.5)
    assert seen == [(2, 9, 0.5)]
    copy = TrainingCopy(storage, "id", other)
    copy.fetch()
    assert (other / CHECKPOINT_FILE).read_bytes() == b"after two epochs"
    (other / CHECKPOINT_FILE).write_bytes(b"after three")
    copy.fetch()
    assert (other / CHECKPOINT_FILE).read_bytes() == b"after three", "this node's own checkpoint is newer"
    copy.delete()
    third = tmp_path / "third/ab.training"
    TrainingCopy(storage, "id", third).fetch()
    assert list(third.iterdir()) == []


def test_a_training_does_without_a_storage_that_does_not_answer(tmp_path, monkeypatch):
    monkeypatch.setattr("trainables.storage.remote_folder._SECONDS_BETWEEN_TRIES", ())
    copy = TrainingCopy("file:///proc/none/such", "id", tmp_path / "ab.training")
    copy.fetch()
    (tmp_path / "ab.training" / CHECKPOINT_FILE).write_text(json.dumps({}))
    copy.copy()
    copy.delete()
    assert [path.name for path in (tmp_path / "ab.training").iterdir()] == [CHECKPOINT_FILE]
