"""How numbers read in a report."""

import math
import re
from typing import Final

from analysis.questions.methods import settings_of
from analysis.reading.trials import ConfigSummary
from analysis.statistics.estimates import Estimate

UNBROKEN: Final = "\u00a0"  # a space at which no line ends
# A hyphen in front of a number, where it is neither within a name, a date or an exponent nor part of an option.
_HYPHEN: Final = re.compile(r"(?<![\w.)\]=-])-(?=\.?\d)")


def bounded(estimate: Estimate, *, sign: str = "", places: int = 3) -> str:
    """An estimate with its interval, `0.886 [0.870, 0.902]`; nothing where it rests on nothing."""
    if not estimate.n or math.isnan(estimate.value):
        return ""
    parts = (estimate.value, estimate.low, estimate.high)
    value, low, high = (number(part, sign=sign, places=places) for part in parts)
    return f"{value} [{low},{UNBROKEN}{high}]" if low else value


def number(value: float | None, *, sign: str = "", places: int = 3) -> str:
    """So many decimals, with a minus that lines up; nothing for what is not known."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:{sign}.{places}f}".replace("-", "−")


def with_minus(text: str) -> str:
    """Words with numbers in them, whose minus is then that of all other numbers of the page."""
    return _HYPHEN.sub("−", text)


def p_in_words(p_value: float | None) -> str:
    """A p-value with the digits that decide."""
    if p_value is None or math.isnan(p_value):
        return ""
    return f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"


def p_phrase(p_value: float | None, how: str) -> str:
    """`, p = 0.031 by Holm`; nothing where nothing was tested."""
    words = p_in_words(p_value)
    return f", p {words if words.startswith('<') else f'= {words}'} {how}" if words else ""


def config_label(config: ConfigSummary) -> str:
    """A repeated config in words: its method, and what was searched or tuned of it."""
    settings = with_minus(settings_of(config))
    return f"{config.method} ({settings.replace('_', ' ')})" if settings else config.method


def counted(count: int, noun: str) -> str:
    """`1 trial`, `2 trials`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """A time as a person says it."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
