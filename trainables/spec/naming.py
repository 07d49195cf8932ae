"""How names are refused: those that nobody knows, and those that are no text."""

import difflib
from collections.abc import Iterable, Mapping
from typing import Any


def unknown_name(what: str, name: str, known: Iterable[str]) -> str:
    """The message for an unknown `name`: what was given, the nearest known one, all that is allowed."""
    known = list(known)
    nearest = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    hint = f"; did you mean {nearest[0]!r}?" if nearest else "."
    return f"unknown {what} {name!r}{hint} Known: {', '.join(known)}"


def describe_other_text(options: Mapping[str, Any]) -> str | None:
    """Describe an option whose value is no text in UTF-8; None if there is none.

    Names of files may be in other encodings, which Ray, SQLite and safetensors do not take.

    Args:
        options: values by the names of their parameters; lists of values are looked through.
    """
    for name, value in options.items():
        for word in map(str, value if isinstance(value, list) else [value]):
            try:
                word.encode()
            except UnicodeEncodeError as error:
                character = word[error.start]
                return f"--{name.replace('_', '-')} {word!r}: {character!r} is no character of UTF-8; give another name"
    return None
