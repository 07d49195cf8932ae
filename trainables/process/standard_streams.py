"""Standard streams of a command: open from the start, and no reason for work to fail."""

import contextlib
import io
import os
import sys
from typing import IO, Any, Final, TextIO

_MODES: Final = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


def prepare_standard_streams() -> None:
    """Open closed standard streams on the null device, and let no text that cannot be shown end the command.

    A file opened later would else get the number of a closed stream (`>&-`), and whatever a library prints would be
    written into that file. A write to stderr fails when its reader is gone (`2>&1 | head`) or its disk is full; a study
    goes on without its progress. Characters that the encoding of stdout lacks are shown by their numbers.

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
    if isinstance(sys.stdout, io.TextIOWrapper) and sys.stdout.errors == "strict":
        sys.stdout.reconfigure(errors="backslashreplace")
    if not isinstance(sys.stderr, ForgivingStream):
        sys.stderr = ForgivingStream(sys.stderr)


def show_result(text: str, stream: TextIO, *, elsewhere: str) -> None:
    """Print the result of finished work; if the stream takes nothing, that is a warning, as the work is done.

    Args:
        text: of the result.
        stream: such as stdout; closing it afterwards does not fail.
        elsewhere: where else the result is, for the warning.
    """
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:  # the reader of a pipe is gone, or the disk of a file is full
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), stream.fileno())  # takes what is left in the buffer
        print(f"warning: the result cannot be printed ({error.strerror}); {elsewhere}", file=sys.stderr)


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
