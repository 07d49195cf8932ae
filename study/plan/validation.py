"""What pydantic finds wrong, for a person."""

from collections.abc import Callable, Sequence
from typing import Final

from pydantic import ValidationError

from trainables.storage.uris import redact

_LONGEST: Final = 100  # characters of a value that are shown


def _path(location: Sequence[int | str]) -> str:
    return ".".join(map(str, location))


def describe_validation(error: ValidationError, *, name: Callable[[Sequence[int | str]], str] = _path) -> str:
    """Pydantic's findings as one line each: the field, what is wrong, what was given.

    Args:
        error: from pydantic.
        name: names the place of a value that is wrong; the fields on the way to it if not given.
    """
    lines = []
    for finding in error.errors():
        where = name(finding["loc"]) if finding["loc"] else ""
        message = finding["msg"].removeprefix("Value error, ")
        given = ""
        if where and not isinstance(finding["input"], dict):
            value = redact(repr(finding["input"]))
            given = f" (given: {value if len(value) <= _LONGEST else f'{value[:_LONGEST]}...'})"
        lines.append(f"{where}: {message}{given}" if where else message)
    return "\n".join(lines)
