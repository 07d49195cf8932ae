"""Argument for `--search` with a wider parameter range, within the accepted values of the field."""

import math
from typing import Any, Final, Literal, Protocol

from trainables.spec.searchable import limits_of, searchable_fields

_DIGITS: Final = 2  # significant digits in a new bound
_SMALLEST: Final = 1e-3


class Range(Protocol):
    """Searched range of a numeric parameter."""

    @property
    def name(self) -> str: ...  # noqa: D102
    @property
    def low(self) -> float | None: ...  # noqa: D102
    @property
    def high(self) -> float | None: ...  # noqa: D102
    @property
    def log(self) -> bool: ...  # noqa: D102


def wider_argument(searched: Range, end: Literal["low", "high"]) -> str | None:
    """Return the argument to extend a range at one end by half the range's width, on the search scale.

    Args:
        searched: searched range.
        end: end to extend.

    Returns:
        An argument such as `--search temperature=1:64:log`; None if the field accepts no value beyond that end.
    """
    low, high = searched.low, searched.high
    if low is None or high is None or searched.name not in searchable_fields():
        return None
    limits = limits_of(searched.name)
    bound, outward = (low, -1.0) if end == "low" else (high, 1.0)
    limit = limits.low if end == "low" else limits.high
    new = bound * (high / low) ** (outward / 2) if searched.log else bound + outward * (high - low) / 2
    new = _rounded(new, outward)
    if limit is not None and (new - limit) * outward >= 0:
        # A limit to keep numbers finite, such as a temperature of 1e-6, is no value to try.
        usable = limits.contains(limit) and (abs(limit) >= _SMALLEST or (limit == 0 and not searched.log))
        new = limit if usable else float(f"{(bound + limit) / 2:.3g}")
    if limits.kind == "int":
        new = float(round(new))
    if new == bound or not limits.contains(new) or (searched.log and new <= 0):
        return None
    ends = (new, high) if end == "low" else (low, new)
    shown = ":".join(map(_in_words, ends))
    return f"--search {searched.name}={shown}{':log' if searched.log else ''}"


def _rounded(value: float, outward: float) -> float:
    """Round to two significant digits, away from the range."""
    if value == 0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(abs(value))) - _DIGITS + 1)
    steps = round(value / unit, 9)
    return float(f"{(math.ceil(steps) if outward > 0 else math.floor(steps)) * unit:.12g}")


def _in_words(value: Any) -> str:
    return f"{value:.12g}"
