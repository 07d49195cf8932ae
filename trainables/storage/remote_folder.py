"""A folder on storage that all nodes reach, by any URI that `pyarrow.fs` knows (S3, GCS, Azure, HDFS, file).

A file appears under its name whole or not at all: object stores make an object visible when its upload completes;
elsewhere it is written under another name and moved.
"""

import errno
import os
import re
import secrets
import subprocess
import sys
import time
from collections.abc import Callable
from functools import cached_property
from pathlib import Path
from typing import BinaryIO, Final, TypeVar
from urllib.parse import urlsplit

import pyarrow as pa
import pyarrow.fs as pafs

from trainables.storage.uris import redact, redact_place

_SECONDS_BETWEEN_TRIES: Final = (0.5, 1.5)  # after those that the client makes itself, S3's for some six seconds
_SECONDS_OF_REST: Final = 60.0
_SECONDS_TO_ANSWER: Final = 30
_CHUNK: Final = 16 << 20
_MARKER: Final = "about.txt"
_MARKER_TEXT: Final = (
    b"Written by pesfkd: outputs of frozen teachers, made anew if deleted, and checkpoints of studies that run.\n"
)
_OBJECT_STORES: Final = frozenset({"s3", "gcs", "abfs"})
# Answers that waiting does not change.
_FINAL_ANSWER: Final = re.compile(
    r"NO_SUCH_BUCKET|ACCESS_DENIED|INVALID_ACCESS_KEY|SIGNATURE|CLIENT_TOKEN|AUTHENTICATION|EXPIRED_TOKEN|"
    r"PERMISSION_DENIED|UNAUTHENTICATED|NOT_FOUND|AuthorizationFailure|ContainerNotFound",
    re.IGNORECASE,
)
_LOCAL_DISK: Final = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS})
_CHECK: Final = (
    "import sys; from trainables.storage.remote_folder import RemoteFolder; RemoteFolder(sys.stdin.read()).check()"
)
_ADVICE: Final = (
    "Give {flag} a folder, or a URI such as s3://BUCKET/FOLDER whose bucket exists "
    "(?endpoint_override=HOST:PORT&scheme=http for a server of your own); credentials come from where the store's own "
    "tools look for them, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY on every node."
)

Answer = TypeVar("Answer")


class RemoteFolderError(OSError):
    """The storage does not answer, or refuses; the message has no secrets."""


class RemoteFolder:
    """Files by name under a URI.

    Args:
        uri: of the folder; nothing is asked of the storage before the first call.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._resting_until = 0.0

    def __str__(self) -> str:
        return redact_place(self._uri).partition("?")[0]

    def names(self, folder: str) -> set[str]:
        """The names of what lies in a folder; none if there is no such folder.

        Raises:
            RemoteFolderError: the storage does not answer, or refuses.
        """
        selector = pafs.FileSelector(self._path(folder).rstrip("/"), allow_not_found=True)
        return {info.base_name for info in self._patiently(lambda: self._system[0].get_file_info(selector))}

    def read_into(self, name: str, file: BinaryIO) -> None:
        """Copy a file's content into an open local file.

        Raises:
            FileNotFoundError: there is no such file.
            RemoteFolderError: as above.
            OSError: the local disk is full or refuses.
        """

        def copy() -> None:
            file.seek(0)
            file.truncate()
            with self._system[0].open_input_stream(self._path(name)) as stream:
                while chunk := stream.read(_CHUNK):
                    file.write(chunk)

        self._patiently(copy)

    def write_from(self, name: str, path: Path) -> None:
        """Copy a local file to storage, in place of what is there under that name.

        Raises:
            FileNotFoundError: there is no such local file.
            RemoteFolderError: as above.
        """
        with pa.memory_map(str(path)) as file:
            content = file.read_buffer()
            self._patiently(lambda: self._write(name, content))

    def delete(self, name: str) -> None:
        """Remove a file, if it is there and may be removed."""
        try:
            self._patiently(lambda: self._system[0].delete_file(self._path(name)))
        except OSError:
            return

    def delete_folder(self, name: str) -> None:
        """Remove a folder with all that is in it, if it is there and may be removed."""
        try:
            self._patiently(lambda: self._system[0].delete_dir(self._path(name)))
        except OSError:
            return

    def check(self) -> None:
        """Write a small file and read it back.

        Raises:
            RemoteFolderError: as above.
        """
        self._patiently(lambda: self._write(_MARKER, pa.py_buffer(_MARKER_TEXT)))
        if self._patiently(lambda: self._system[0].open_input_stream(self._path(_MARKER)).read()) != _MARKER_TEXT:
            raise RemoteFolderError(f"{self}: {_MARKER} does not hold what was just written to it")

    @cached_property
    def _system(self) -> tuple[pafs.FileSystem, str]:
        return open_storage(self._uri)

    def _path(self, name: str) -> str:
        return f"{self._system[1].rstrip('/')}/{name}"

    def _write(self, name: str, content: pa.Buffer) -> None:
        system, path = self._system[0], self._path(name)
        self._write_whole(name, content)
        size = system.get_file_info(path).size
        if size != content.size:  # a server that does not understand how its client frames an upload
            raise OSError(f"{name} was stored as {size} bytes instead of {content.size}")

    def _write_whole(self, name: str, content: pa.Buffer) -> None:
        system, path = self._system[0], self._path(name)
        if system.type_name in _OBJECT_STORES:
            with system.open_output_stream(path) as stream:
                stream.write(content)
            return
        folder, _, last = path.rpartition("/")
        system.create_dir(folder, recursive=True)
        partial = f"{folder}/.{last}.{secrets.token_hex(8)}.partial"
        try:
            with system.open_output_stream(partial) as stream:
                stream.write(content)
            try:
                system.move(partial, path)
            except OSError:  # not every storage moves a file onto another
                system.delete_file(path)
                system.move(partial, path)
        except BaseException:
            if system.get_file_info(partial).type == pafs.FileType.File:
                system.delete_file(partial)
            raise

    def _patiently(self, action: Callable[[], Answer]) -> Answer:
        """What `action` answers, tried again where the storage fails as networks do."""
        if time.monotonic() < self._resting_until:
            raise RemoteFolderError(f"{self}: did not answer a moment ago; not asked again yet")
        for pause in (*_SECONDS_BETWEEN_TRIES, None):
            try:
                return action()
            except FileNotFoundError:
                raise
            except (OSError, pa.ArrowException, ValueError) as error:
                if isinstance(error, OSError) and error.errno in _LOCAL_DISK:
                    raise
                final = not isinstance(error, OSError) or _FINAL_ANSWER.search(str(error)) is not None
                if pause is None and not final:
                    # Every slot would wait for as long again, where a trial can compute its rows meanwhile.
                    self._resting_until = time.monotonic() + _SECONDS_OF_REST
                if pause is None or final:
                    raise RemoteFolderError(f"{self}: {redact(str(error), self._uri)}") from None
                time.sleep(pause)
        raise AssertionError("unreachable")


def open_storage(uri: str) -> tuple[pafs.FileSystem, str]:
    """The file system of a URI, and the path in it that the URI names.

    Raises:
        pyarrow.ArrowInvalid: the URI is not understood; the message may have its secrets.
    """
    if urlsplit(uri).scheme in ("gs", "gcs") and "retry_limit_seconds" not in uri:
        uri += ("&" if "?" in uri else "?") + "retry_limit_seconds=10"  # it would retry for a quarter of an hour
    system, path = pafs.FileSystem.from_uri(uri)
    return system, path


def check_remote_folder(
    uri: str, *, flag: str = "--teacher-outputs-path", purpose: str = "the teacher's outputs"
) -> None:
    """Check that a folder on storage can be written and read, within half a minute.

    A client that waits for a server that does not answer cannot be interrupted, so a process of its own asks.

    Args:
        uri: of the folder.
        flag: the option that named it.
        purpose: what it is for.

    Raises:
        RemoteFolderError: saying what is wrong and what to do.
    """
    shown, advice = redact_place(uri), _ADVICE.format(flag=flag)
    try:
        check = subprocess.run(  # noqa: S603 - our own interpreter and text
            [sys.executable, "-c", _CHECK],
            input=uri,
            capture_output=True,
            text=True,
            timeout=_SECONDS_TO_ANSWER,
            check=False,
            env={**os.environ, "PYTHONPATH": os.pathsep.join(part for part in sys.path if part)},
        )
    except subprocess.TimeoutExpired:
        raise RemoteFolderError(f"{shown} did not answer within {_SECONDS_TO_ANSWER} s. {advice}") from None
    if check.returncode != 0:
        reason = (check.stderr.strip().splitlines() or ["no reason given"])[-1]
        reason = reason.removeprefix("trainables.storage.remote_folder.RemoteFolderError: ")
        raise RemoteFolderError(f"{shown} cannot be used for {purpose}: {redact(reason, uri)}. {advice}")


def node_cache() -> Path:
    """This node's own folder for copies of what lies on storage.

    `PESFKD_CACHE` names it; else it is `pesfkd` under `XDG_CACHE_HOME` or `~/.cache`.
    """
    named = os.environ.get("PESFKD_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pesfkd"
