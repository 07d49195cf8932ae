"""Standard streams of a command: always open, and never a reason for work to fail."""

import contextlib
import io
import os
import sys
from typing import IO, Any, Final, TextIO

_MODES: Final = ((0, "stdin", "r"), (1, "stdout", "w"), (2, "stderr", "w"))


def prepare_standard_streams() -> None:
    """Open closed standard streams on the null device, and keep unprintable text from ending the command.

    Without this, a file opened later would get the descriptor of a closed stream (`>&-`), and library output would be
    written into this file. A write to stderr fails when the reader is gone (`2>&1 | head`) or the disk is full; the
    study then continues without showing progress. Characters missing in stdout's encoding are printed as backslash
    escapes.

    Every command calls this function first. Calling it again changes nothing.
    """
    for descriptor, name, mode in _MODES:
        try:
            os.fstat(descriptor)
        except OSError:
            opened = os.open(os.devnull, os.O_RDWR)  # gets the lowest free descriptor
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
    """Print a result of finished work. If printing fails, warn instead, because the work is done.

    Args:
        text: result text.
        stream: output stream such as stdout. Closing the stream later does not fail.
        elsewhere: end of the warning, with another place of the result.
    """
    try:
        stream.write(text)
        stream.flush()
    except OSError as error:  # the reader of the pipe is gone, or the disk is full
        with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
            os.dup2(nowhere.fileno(), stream.fileno())  # receives the rest of the buffer
        print(f"warning: cannot print the result ({error.strerror}); {elsewhere}", file=sys.stderr)


class ForgivingStream:
    """Text stream that drops output when a write fails.

    Args:
        stream: underlying stream.
    """

    def __init__(self, stream: IO[str]) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        """Write text, ignoring failures.

        Returns:
            The length of `text`, even if the write failed.
        """
        with contextlib.suppress(OSError, ValueError):  # no reader, no room, or closed
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        """Flush the buffer, ignoring failures."""
        with contextlib.suppress(OSError, ValueError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
