"""Readable messages for pydantic validation errors."""

from collections.abc import Callable, Sequence
from typing import Final

from pydantic import ValidationError

from trainables.storage.uris import redact

_LONGEST: Final = 100  # maximum number of characters shown of a value


def _path(location: Sequence[int | str]) -> str:
    return ".".join(map(str, location))


def describe_validation(error: ValidationError, *, name: Callable[[Sequence[int | str]], str] = _path) -> str:
    """Format a validation error, one line per problem: the field, the message and the given value.

    Args:
        error: validation error raised by pydantic.
        name: function from an error's location to a displayed field name. By default, the location joined by dots.
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
