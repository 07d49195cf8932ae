"""Hints for misspelt names."""

import difflib
from collections.abc import Callable, Iterable


def did_you_mean(name: str, known: Iterable[str], show: Callable[[str], str] = str) -> str:
    """Return `; did you mean X?` with the nearest known name, or an empty text if none is near.

    Args:
        name: unknown name.
        known: known names.
        show: formats the nearest name.
    """
    near = difflib.get_close_matches(name, list(known), n=1, cutoff=0.5)
    return f"; did you mean {show(near[0])}?" if near else ""
