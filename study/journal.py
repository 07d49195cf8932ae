r"""An append-only log of what happened in a study, one checked line an event: what a resumed study starts from.

Every event is on disk before anything acts on it. A line is `crc32 json\n`; a killed writer can leave a torn last
line, which is cut off when the log is opened again, and a line whose checksum fails is reported and left out.
"""

import json
import os
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from trainables.disk import describe_full_disk


class Journal:
    """Appends events to `path`.

    Args:
        path: the log; made if missing, its torn last line cut off.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        if path.exists():
            _cut_torn_line(path)
        self._file = path.open("ab", buffering=0)

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


def read_journal(path: Path) -> tuple[list[dict[str, Any]], list[int]]:
    """All intact events, oldest first, and the numbers (from 1) of damaged lines.

    A torn last line is no damage: its event never took effect.
    """
    events, damaged = [], []
    lines = path.read_bytes().split(b"\n")
    for number, line in enumerate(lines[:-1], start=1):
        event = _parse(line)
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
    except ValueError:
        return None
    return event if isinstance(event, dict) and "event" in event else None


def _cut_torn_line(path: Path) -> None:
    with path.open("rb+") as file:
        content = file.read()
        whole = content.rfind(b"\n") + 1
        if whole < len(content):
            file.truncate(whole)
