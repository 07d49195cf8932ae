"""Error messages for unknown names and for text that is not UTF-8."""

from collections.abc import Iterable, Mapping
from typing import Any

from trainables.display.nearest import did_you_mean


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """Return an error message for an unknown `name`, with the nearest known name and all known names."""
    known = list(known)
    return f"unknown {what} {name!r}{did_you_mean(name, known, repr) or '.'} Known: {', '.join(known)}"


def describe_other_text(options: Mapping[str, Any]) -> str | None:
    """Return an error message for the first option with text that is not UTF-8, or None if there is none.

    File names may use other encodings, which Ray, SQLite and safetensors do not accept.

    Args:
        options: values by parameter name. Every list entry is checked.
    """
    for name, value in options.items():
        for word in map(str, value if isinstance(value, list) else [value]):
            try:
                word.encode()
            except UnicodeEncodeError as error:
                character = word[error.start]
                return f"--{name.replace('_', '-')} {word!r}: {character!r} is no character of UTF-8; give another name"
    return None
