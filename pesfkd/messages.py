"""Errors in the words of Python: names of parameters in place of flags."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from study.cli.commands import calls_in_messages
from study.plan.options import OPTIONS
from trainables.process.errors import StudyError, UsageError

_NAMES: Final = {option.long_flag: name for name, option in OPTIONS.items()}
# Commands of a shell and quoted code stay as they are.
_FLAG: Final = re.compile(r"`[^`]*`|\b(?:python -m|ray start)[^\n;,)]*|(?<![\w/-])(--[a-z][a-z0-9-]*)")


def in_python(text: str) -> str:
    """Return a message with the names of parameters in place of flags.

    Args:
        text: message for the command line.

    Examples:
        >>> in_python("--seeds is the number of fresh seeds for --confirm: give --confirm too")
        'seeds is the number of fresh seeds for confirm: give confirm too'
    """
    return _FLAG.sub(lambda found: found[0] if found[1] is None else python_name(found[1]), text)


def python_name(flag: str) -> str:
    """Return the name of an option in Python.

    Args:
        flag: long flag of the command line.
    """
    return _NAMES.get(flag, flag[2:].replace("-", "_"))


@contextmanager
def python_errors() -> Iterator[None]:
    """Raise the errors of the block in the words of Python. Errors of the file system become a `StudyError`."""
    with calls_in_messages():
        try:
            yield
        except (UsageError, StudyError) as error:
            error.args = (in_python(str(error)), *error.args[1:])
            raise
        except OSError as error:  # such as a full disk or a deleted folder
            raise StudyError(str(error)) from error
