"""Folders on remote storage: an S3-compatible server on loopback, and a local folder by URI."""

import logging
import os
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from moto.server import ThreadedMotoServer

from tests.conftest import S3
from trainables.storage import remote_folder
from trainables.storage.remote_folder import RemoteFolder, RemoteFolderError, check_remote_folder, node_cache

pytestmark = pytest.mark.study


@pytest.fixture(params=["s3", "file"])
def remote(request: pytest.FixtureRequest, s3: S3, tmp_path: Path) -> RemoteFolder:
    return RemoteFolder(s3.uri(f"{s3.new_bucket()}/pre/fix") if request.param == "s3" else f"file://{tmp_path}/far/off")


def read(remote: RemoteFolder, name: str, folder: Path) -> bytes:
    with (folder / "read").open("w+b") as file:
        remote.read_into(name, file)
    return (folder / "read").read_bytes()


def test_what_is_written_is_listed_and_read_back(remote, tmp_path):
    content = os.urandom(20_000_000)  # more than one part of an upload
    (tmp_path / "mine").write_bytes(content)
    assert remote.names("key") == set()
    remote.write_from("key/a.arrow", tmp_path / "mine")
    assert remote.names("key") == {"a.arrow"}
    assert read(remote, "key/a.arrow", tmp_path) == content
    (tmp_path / "mine").write_bytes(b"other")
    remote.write_from("key/a.arrow", tmp_path / "mine")
    assert read(remote, "key/a.arrow", tmp_path) == b"other"
    remote.delete("key/a.arrow")
    remote.delete("key/a.arrow")
    assert remote.names("key") == set()


def test_a_file_that_is_not_there_is_a_file_not_found(remote, tmp_path):
    with pytest.raises(FileNotFoundError):
        read(remote, "key/none", tmp_path)


def test_a_folder_that_can_be_used_passes_the_check(remote):
    remote.check()
    remote.check()
    assert "about.txt" in remote.names("")


@pytest.mark.launcher
def test_a_killed_writer_leaves_nothing_under_the_name(tmp_path):
    program = (
        "import os, sys; import pyarrow as pa; from trainables.storage.remote_folder import RemoteFolder\n"
        "remote = RemoteFolder(sys.argv[1]); system = remote._system[0]\n"
        "class Dies:\n"
        "    type_name = 'local'\n"
        "    def __getattr__(self, name):\n"
        "        return (lambda *_: os.kill(os.getpid(), 9)) if name == 'move' else getattr(system, name)\n"
        "remote.__dict__['_system'] = (Dies(), remote._system[1])\n"
        "remote.write_from('key/a', sys.argv[2])\n"
    )
    (tmp_path / "mine").write_bytes(b"content")
    done = subprocess.run([sys.executable, "-c", program, f"file://{tmp_path}/far", tmp_path / "mine"], check=False)
    assert done.returncode == -9
    (left,) = (tmp_path / "far" / "key").iterdir()
    assert left.name.endswith(".partial")


def test_a_server_that_is_away_for_a_moment_is_waited_for(s3, tmp_path):
    bucket = s3.new_bucket()
    s3.put(bucket, "key/a", b"content")
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    later = ThreadedMotoServer("127.0.0.1", port, verbose=False)  # has the same buckets, which belong to the process

    starting = threading.Timer(1.5, later.start)
    starting.start()
    try:
        assert read(RemoteFolder(S3(port).uri(bucket)), "key/a", tmp_path) == b"content"
    finally:
        starting.join()
        later.stop()


def test_storage_that_fails_is_asked_again_and_then_left_alone_for_a_while(tmp_path, monkeypatch):
    monkeypatch.setattr(remote_folder, "_SECONDS_BETWEEN_TRIES", (0.0, 0.0))
    remote = RemoteFolder(f"file://{tmp_path}/far")
    asked = []

    def fail() -> None:
        asked.append(1)
        raise OSError("curlCode: 7, Could not connect to server")

    for times in (3, 3):  # the second call does not retry
        with pytest.raises(RemoteFolderError):
            remote._with_retries(fail)
        assert len(asked) == times


@pytest.mark.launcher
def test_a_missing_bucket_is_refused_by_name(s3):
    with pytest.raises(
        RemoteFolderError, match=r"s3://no-such-bucket/x\?.* cannot be used .*NO_SUCH_BUCKET"
    ) as refusal:
        check_remote_folder(s3.uri("no-such-bucket/x"))
    assert "with an existing bucket" in str(refusal.value)
    assert "AWS_ACCESS_KEY_ID" in str(refusal.value)


@pytest.mark.launcher
def test_credentials_that_are_no_good_are_refused_and_not_shown(s3, monkeypatch):
    bucket = s3.new_bucket()
    monkeypatch.setattr("moto.settings.INITIAL_NO_AUTH_ACTION_COUNT", 0.0)  # the server checks credentials from now on
    with pytest.raises(RemoteFolderError, match="INVALID_ACCESS_KEY_ID") as refusal:
        check_remote_folder(s3.uri(bucket, user="someone:hush%2Fhush@"))
    assert "hush" not in str(refusal.value)
    assert f"s3://***@{bucket}" in str(refusal.value)


@pytest.mark.launcher
@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("nowhere://bucket/x", "Unrecognized filesystem type"),
        ("s3://bucket/x?endpoint=127.0.0.1", "Unexpected query parameter"),
        ("s3://someone:hush/hush@bucket/x", "Cannot parse URI"),
    ],
)
def test_a_uri_that_is_not_understood_is_refused(uri, says):
    with pytest.raises(RemoteFolderError, match=says) as refusal:
        check_remote_folder(uri)
    assert "hush" not in str(refusal.value)


@pytest.mark.launcher
def test_a_server_that_never_answers_is_not_waited_for(monkeypatch):
    monkeypatch.setattr(remote_folder, "_SECONDS_TO_ANSWER", 3)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    # The client alone would wait a minute and a half and give another message.
    with (
        socket.create_server(("127.0.0.1", 0)) as silent,
        pytest.raises(RemoteFolderError, match="did not answer within 3 s"),
    ):
        check_remote_folder(S3(silent.getsockname()[1]).uri("bucket/x"))


def test_the_cache_is_where_the_environment_says(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    monkeypatch.delenv("PESFKD_CACHE", raising=False)
    assert node_cache() == tmp_path / "xdg" / "pesfkd"
    monkeypatch.setenv("PESFKD_CACHE", str(tmp_path / "mine"))
    assert node_cache() == tmp_path / "mine"
