"""Error for user code, and the user's part of a traceback."""

import importlib
import traceback
from collections.abc import Collection
from pathlib import Path
from types import TracebackType
from typing import Final

from trainables.display.failures import TRACEBACK_HEADER

# Files with import frames, which stand between an import statement and the imported module.
_IMPORTING: Final = (str(Path(__file__).parent), importlib.__file__, "<frozen importlib")


class UserCodeError(ValueError):
    """User code cannot be found, imported or used. The message gives the reason and a remedy."""


def user_traceback(error: BaseException, files: Collection[str]) -> str:
    """Format an error as Python does, starting at the first frame in a user's file.

    Args:
        error: error raised in the user's code, or because of it.
        files: file names of the user's code, as in the frames.

    Returns:
        The traceback. Type and message alone if no frame is in the files.
    """
    described = traceback.TracebackException(type(error), error, first_user_frame(error.__traceback__, files))
    between = [each for each in described.stack if not each.filename.startswith(_IMPORTING)]
    described.stack = traceback.StackSummary.from_list(between)
    return "".join(described.format(chain=False)).removeprefix(TRACEBACK_HEADER if not between else "").rstrip()


def first_user_frame(trace: TracebackType | None, files: Collection[str]) -> TracebackType | None:
    """Return the traceback from the first frame in one of `files` on, or None without such a frame."""
    while trace is not None and trace.tb_frame.f_code.co_filename not in files:
        trace = trace.tb_next
    return trace
