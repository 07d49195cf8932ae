"""Typeset text from elsewhere: minus signs, and intervals kept on one line."""

import re
from typing import Final

UNBROKEN: Final = "\u00a0"  # non-breaking space
# Hyphen before a number, unless it belongs to a name, a date, an exponent or an option.
_HYPHEN: Final = re.compile(r"(?<![\w.)\]=-])-(?=\.?\d)")
_SPACE_IN_INTERVAL: Final = re.compile(r"(?<=,) (?=[−+]?[\d∞][\d.]*\])")


def with_minus(text: str) -> str:
    """Replace hyphens before numbers by the minus sign used in formatted numbers."""
    return _HYPHEN.sub("−", text)


def unbroken(text: str) -> str:
    """Keep the two ends of an interval such as `[0.870, 0.902]` on one line."""
    return _SPACE_IN_INTERVAL.sub(UNBROKEN, text)


def typeset(text: str) -> str:
    """Set minus signs and intervals in a paragraph."""
    return unbroken(with_minus(text))
