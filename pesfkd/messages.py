"""Error messages with Python parameter names in place of flags."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from study.cli.commands import calls_in_messages
from study.plan.options import OPTIONS
from trainables.process.errors import StudyError, UsageError

_NAMES: Final = {option.long_flag: name for name, option in OPTIONS.items()}
# Shell commands and quoted code stay unchanged.
_FLAG: Final = re.compile(r"`[^`]*`|\b(?:python -m|ray start)[^\n;,)]*|(?<![\w/-])(--[a-z][a-z0-9-]*)")


def in_python(text: str) -> str:
    """Return a message with parameter names in place of flags.

    Args:
        text: message for the command line.

    Examples:
        >>> in_python("--seeds is the number of fresh seeds for --confirm: give --confirm too")
        'seeds is the number of fresh seeds for confirm: give confirm too'
    """
    return _FLAG.sub(lambda found: found[0] if found[1] is None else python_name(found[1]), text)


def python_name(flag: str) -> str:
    """Return an option's name in Python.

    Args:
        flag: long flag on the command line.
    """
    return _NAMES.get(flag, flag[2:].replace("-", "_"))


@contextmanager
def python_errors() -> Iterator[None]:
    """Rewrite the block's error messages with Python names. File system errors become a `StudyError`."""
    with calls_in_messages():
        try:
            yield
        except (UsageError, StudyError) as error:
            error.args = (in_python(str(error)), *error.args[1:])
            raise
        except OSError as error:  # e.g. a full disk or a deleted folder
            raise StudyError(str(error)) from error
