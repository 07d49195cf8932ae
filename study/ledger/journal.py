r"""Append-only event log of a study. A resumed study is rebuilt from this log.

Every event is written to the file before any code acts on it. Each line has the form `crc32 json\n`. A killed writer
can leave an incomplete last line. It is removed when the log is opened for writing. Lines with a wrong checksum are
reported and skipped. Reading tolerates typical changes by editors and copies: `\r\n`, a byte order mark and a missing
final `\n`. Duplicate lines count once.
"""

import hashlib
import json
import os
import re
import zlib
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, Final

from trainables.storage.files import describe_full_disk, sync

_BYTE_ORDER_MARK: Final = b"\xef\xbb\xbf"
# Prefix of a line, cut at any byte. JSON is written in ASCII without control characters.
_TORN: Final = re.compile(rb"[0-9a-f]{0,8}|[0-9a-f]{8} [ -~]*")


class Journal:
    """Writer that appends events to a log file.

    Args:
        path: log file. Created if missing. An incomplete last line is removed.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        is_new = not path.exists()
        lacks_newline = not is_new and _repair_end(path)
        self._file = path.open("ab", buffering=0)
        if lacks_newline:
            self._file.write(b"\n")
        if is_new:
            sync(path.parent)

    def append(self, event: dict[str, Any], *, durable: bool = False) -> None:
        """Write one event. With `durable`, also wait for the disk, so the event survives a power failure.

        Raises:
            OSError: writing failed. The message names the file and, for a full disk, the space needed. The file then
                contains no part of the event.
        """
        content = json.dumps(event, separators=(",", ":")).encode()
        line = b"%08x %s\n" % (zlib.crc32(content), content)
        before = os.fstat(self._file.fileno()).st_size
        try:
            written = 0
            while written < len(line):  # a full disk accepts part of a line and fails only on the next write
                written += self._file.write(line[written:]) or 0
            if durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(before)
            raise describe_full_disk(error, self._path, len(line)) from None

    def close(self) -> None:
        """Close the file. Appending to a closed journal is an error."""
        self._file.close()


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Yield the number (from 1) and the event of each line, oldest first. For a damaged line, the event is None.

    An incomplete last line is not damage, because no code acted on the event. Duplicate lines are skipped.

    Raises:
        OSError: the file cannot be read.
    """
    lines = path.read_bytes().removeprefix(_BYTE_ORDER_MARK).split(b"\n")
    end, _ = _split_end(lines.pop())
    seen: set[bytes] = set()
    for number, line in enumerate([*lines, *([end] if end else [])], start=1):
        content = line.removesuffix(b"\r")
        if not content:
            continue
        digest = hashlib.blake2b(content, digest_size=16).digest()
        if digest not in seen:
            seen.add(digest)
            yield number, _parse(content)


def _parse(line: bytes) -> dict[str, Any] | None:
    checksum, _, content = line.partition(b" ")
    if checksum != b"%08x" % zlib.crc32(content):
        return None
    try:
        event = json.loads(content)
    except (ValueError, RecursionError):
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _split_end(end: bytes) -> tuple[bytes, bytes]:
    """Split the bytes after the last line break into a complete line and the remains of an interrupted write.

    A file may end in zero bytes after a power failure.
    """
    written = end.rstrip(b"\0")
    if _parse(written.removesuffix(b"\r")) is not None:
        return written, end[len(written) :]
    if _TORN.fullmatch(written) and not _is_whole_json(written[9:]):
        return b"", end
    return end, b""


def _is_whole_json(text: bytes) -> bool:
    """Return whether text begins with a complete JSON value. Such a line was modified, not interrupted."""
    try:
        json.JSONDecoder().raw_decode(text.decode("ascii"))
    except (ValueError, RecursionError):
        return False
    return True


def _repair_end(path: Path) -> bool:
    """Remove an incomplete last line. Return whether the file then ends without a line break."""
    with path.open("rb+") as file:
        content = file.read()
        start = content.rfind(b"\n") + 1
        kept, torn = _split_end(content[start:])
        if torn:
            file.truncate(len(content) - len(torn))
        return bool(kept)
