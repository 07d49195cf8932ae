"""Standard streams of a command: open from the start, and no reason for work to fail."""

import contextlib
import os
import sys
from typing import IO, Any, Final

_MODES: Final = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


def prepare_standard_streams() -> None:
    """Open closed standard streams on the null device, and let no failed write to stderr end the command.

    A file opened later would else get the number of a closed stream (`>&-`), and whatever a library prints would be
    written into that file. A write to stderr fails when its reader is gone (`2>&1 | head`) or its disk is full; a study
    goes on without its progress.

    Every command calls this first. Calling it again changes nothing.
    """
    for descriptor, name, mode in _MODES:
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # the lowest free number
            if opened != descriptor:
                os.dup2(opened, descriptor)
                os.close(opened)
        if getattr(sys, name) is None:
            setattr(sys, name, open(descriptor, mode, encoding="utf-8", closefd=False))  # noqa: SIM115
    if not isinstance(sys.stderr, ForgivingStream):
        sys.stderr = ForgivingStream(sys.stderr)


class ForgivingStream:
    """A text stream that drops output which cannot be written.

    Args:
        stream: where output goes while that works.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text; the number of characters taken, all of them."""
        with contextlib.suppress(OSError, ValueError):  # nobody reads it, no room, or closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Write what is buffered, if that works."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
