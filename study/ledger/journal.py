r"""An append-only log of what happened in a study, one checked line an event: what a resumed study starts from.

Every event is on disk before anything acts on it. A line is `crc32 json\n`. A killed writer can leave a torn last
line, which is cut off when the log is opened again. A line whose checksum fails is reported and left out. What an
editor or a copy does to a text file changes no event: `\r\n`, a byte order mark and a missing last `\n` are read
through, and a line that is there twice counts once.
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
# The beginning of a line, cut at any byte: JSON is written in ASCII, without control characters.
_TORN: Final = re.compile(rb"[0-9a-f]{0,8}|[0-9a-f]{8} [ -~]*")


class Journal:
    """Appends events to `path`.

    Args:
        path: the log; made if missing, its torn last line cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        is_new = not path.exists()
        ends_within_a_line = not is_new and _mend_end(path)
        self._file = path.open("ab", buffering=0)
        if ends_within_a_line:
            self._file.write(b"\n")
        if is_new:
            sync(path.parent)

    def append(self, event: dict[str, Any], *, durable: bool = False) -> None:
        """Write one event; `durable` also waits for the disk, so that it survives a power cut.

        Raises:
            OSError: naming the file, and the room that is needed where there is none; nothing of the event is left.
        """
        content = json.dumps(event, separators=(",", ":")).encode()
        line = b"%08x %s\n" % (zlib.crc32(content), content)
        before = os.fstat(self._file.fileno()).st_size
        try:
            written = 0
            while written < len(line):  # a disk that fills up takes a part and says so only when asked again
                written += self._file.write(line[written:]) or 0
            if durable:
                os.fsync(self._file.fileno())
        except OSError as error:
            with suppress(OSError):
                self._file.truncate(before)
            raise describe_full_disk(error, self._path, len(line)) from None

    def close(self) -> None:
        """Close the file; appending afterwards is an error."""
        self._file.close()


def read_lines(path: Path) -> Iterator[tuple[int, dict[str, Any] | None]]:
    """Number (from 1) and event of each line, oldest first; None for a damaged line.

    A torn last line is no damage, as its event never took effect. A line that repeats an earlier one is left out.

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


def read_journal(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """All intact events, oldest first, and the numbers (from 1) of damaged lines; see `read_lines`."""
    events, damaged = [], []
    for number, event in read_lines(path):
        if event is None:
            damaged.append(number)
        else:
            events.append(event)
    return events, damaged


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
    """What stands behind the last line break: what is to be read of it, and what a killed writer left of a line.

    After a power cut a file may end in zeros.
    """
    written = end.rstrip(b"\0")
    if _parse(written.removesuffix(b"\r")) is not None:
        return written, end[len(written) :]
    if _TORN.fullmatch(written) and not _is_whole_json(written[9:]):
        return b"", end
    return end, b""


def _is_whole_json(text: bytes) -> bool:
    """Whether text begins with a whole JSON value: then it was not torn, but changed."""
    try:
        json.JSONDecoder().raw_decode(text.decode("ascii"))
    except (ValueError, RecursionError):
        return False
    return True


def _mend_end(path: Path) -> bool:
    """Cut off a torn last line; whether the file then ends within a line, after which the next one has to begin."""
    with path.open("rb+") as file:
        content = file.read()
        start = content.rfind(b"\n") + 1
        kept, torn = _split_end(content[start:])
        if torn:
            file.truncate(len(content) - len(torn))
        return bool(kept)
