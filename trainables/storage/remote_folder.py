"""Files in a folder shared by all nodes, under any URI known to `pyarrow.fs` (S3, GCS, Azure, HDFS, file).

A file appears under the final name only when complete. Object stores make an object visible when the upload completes.
On other storage, the file is written under another name and then moved.
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

_SECONDS_BETWEEN_TRIES: Final = (0.5, 1.5)  # after the client's own retries, which take some six seconds for S3
_SECONDS_OF_REST: Final = 60.0
_SECONDS_TO_ANSWER: Final = 30
_CHUNK: Final = 16 << 20
_MARKER: Final = "about.txt"
_MARKER_TEXT: Final = (
    b"Written by pesfkd: outputs of frozen teachers, recomputed if deleted, and checkpoints of running studies.\n"
)
_OBJECT_STORES: Final = frozenset({"s3", "gcs", "abfs"})
# Permanent errors: waiting does not help.
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
    "Give {flag} a folder, or a URI such as s3://BUCKET/FOLDER with an existing bucket (for your own "
    "server, add ?endpoint_override=HOST:PORT&scheme=http). Set credentials on every node as for the "
    "storage's own tools, such as AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY."
)

Result = TypeVar("Result")


class RemoteFolderError(OSError):
    """Storage does not answer or refuses a request. The message contains no secrets.

    Args:
        message: the message.
        is_final: whether another try is useless, as for a missing bucket.
    """

    def __init__(self, message: str, *, is_final: bool = False) -> None:
        super().__init__(message)
        self.is_final = is_final


class RemoteFolder:
    """Folder on remote storage, with files addressed by name.

    Args:
        uri: folder URI. The storage is not contacted before the first call.
    """

    def __init__(self, uri: str) -> None:
        self._uri = uri
        self._resting_until = 0.0

    def __str__(self) -> str:
        return redact_place(self._uri).partition("?")[0]

    def names(self, folder: str) -> set[str]:
        """Return all entry names in a folder, or an empty set if the folder does not exist.

        Raises:
            RemoteFolderError: the storage does not answer, or refuses the request.
        """
        selector = pafs.FileSelector(self._path(folder).rstrip("/"), allow_not_found=True)
        return {info.base_name for info in self._with_retries(lambda: self._system[0].get_file_info(selector))}

    def read_into(self, name: str, file: BinaryIO) -> None:
        """Copy a remote file's content into an open local file.

        Raises:
            FileNotFoundError: the remote file does not exist.
            RemoteFolderError: the storage does not answer, or refuses the request.
            OSError: the local disk is full or read-only.
        """

        def copy() -> None:
            file.seek(0)
            file.truncate()
            with self._system[0].open_input_stream(self._path(name)) as stream:
                while chunk := stream.read(_CHUNK):
                    file.write(chunk)

        self._with_retries(copy)

    def write_from(self, name: str, path: Path) -> None:
        """Copy a local file to storage, replacing any file with the same name.

        Raises:
            FileNotFoundError: the local file does not exist.
            RemoteFolderError: the storage does not answer, or refuses the request.
        """
        with pa.memory_map(str(path)) as file:
            content = file.read_buffer()
            self._with_retries(lambda: self._write(name, content))

    def delete(self, name: str) -> None:
        """Remove a file, if it exists and may be removed."""
        try:
            self._with_retries(lambda: self._system[0].delete_file(self._path(name)))
        except OSError:
            return

    def delete_folder(self, name: str) -> None:
        """Remove a folder and all files in it, if it exists and may be removed."""
        try:
            self._with_retries(lambda: self._system[0].delete_dir(self._path(name)))
        except OSError:
            return

    def check(self) -> None:
        """Write a small file and read it back.

        Raises:
            RemoteFolderError: the storage does not answer, refuses the request or returns other content.
        """
        self._with_retries(lambda: self._write(_MARKER, pa.py_buffer(_MARKER_TEXT)))
        if self._with_retries(lambda: self._system[0].open_input_stream(self._path(_MARKER)).read()) != _MARKER_TEXT:
            raise RemoteFolderError(f"{self}: {_MARKER} does not contain what was just written")

    @cached_property
    def _system(self) -> tuple[pafs.FileSystem, str]:
        return open_storage(self._uri)

    def _path(self, name: str) -> str:
        return f"{self._system[1].rstrip('/')}/{name}"

    def _write(self, name: str, content: pa.Buffer) -> None:
        system, path = self._system[0], self._path(name)
        self._write_whole(name, content)
        size = system.get_file_info(path).size
        if size != content.size:  # a server may misread the client's upload format
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
            except OSError:  # some storage cannot move a file onto an existing file
                system.delete_file(path)
                system.move(partial, path)
        except BaseException:
            if system.get_file_info(partial).type == pafs.FileType.File:
                system.delete_file(partial)
            raise

    def _with_retries(self, action: Callable[[], Result]) -> Result:
        """Return the result of `action`. Retry after possibly temporary errors."""
        if time.monotonic() < self._resting_until:
            raise RemoteFolderError(f"{self}: did not answer recently; not retried yet")
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
                    # Do not ask again for a while. Otherwise every slot would wait as long, although a trial could
                    # compute the rows.
                    self._resting_until = time.monotonic() + _SECONDS_OF_REST
                if pause is None or final:
                    raise RemoteFolderError(f"{self}: {redact(str(error), self._uri)}", is_final=final) from None
                time.sleep(pause)
        raise AssertionError("unreachable")


def open_storage(uri: str) -> tuple[pafs.FileSystem, str]:
    """Return a URI's file system, and the path inside the file system.

    Raises:
        pyarrow.ArrowInvalid: the URI is not understood. The message may contain secrets from the URI.
    """
    if urlsplit(uri).scheme in ("gs", "gcs") and "retry_limit_seconds" not in uri:
        uri += ("&" if "?" in uri else "?") + "retry_limit_seconds=10"  # instead of a quarter of an hour
    system, path = pafs.FileSystem.from_uri(uri)
    return system, path


def check_remote_folder(
    uri: str, *, flag: str = "--teacher-outputs-path", purpose: str = "the teacher's outputs"
) -> None:
    """Check within half a minute that a folder on storage can be written and read.

    The check runs in a separate process, because a client waiting for a dead server cannot be interrupted.

    Args:
        uri: URI of the folder.
        flag: command line option for the folder.
        purpose: the folder's purpose, for the error message.

    Raises:
        RemoteFolderError: the folder cannot be used. The message gives the reason and a remedy.
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
    """Return this node's folder for copies of remote files.

    The environment variable `PESFKD_CACHE` names the folder. The default is `pesfkd` under `XDG_CACHE_HOME` or
    `~/.cache`.
    """
    named = os.environ.get("PESFKD_CACHE")
    return Path(named) if named else Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "pesfkd"
