"""Format numbers for reports."""

import math
import re
from typing import Final

from analysis.questions.methods import settings_of
from analysis.reading.trials import ConfigSummary
from analysis.statistics.estimates import Estimate

UNBROKEN: Final = "\u00a0"  # non-breaking space
# Hyphen before a number, unless it belongs to a name, a date, an exponent or an option.
_HYPHEN: Final = re.compile(r"(?<![\w.)\]=-])-(?=\.?\d)")


def bounded(estimate: Estimate, *, sign: str = "", places: int = 3) -> str:
    """Format an estimate with its interval, such as `0.886 [0.870, 0.902]`; empty if n is 0."""
    if not estimate.n or math.isnan(estimate.value):
        return ""
    parts = (estimate.value, estimate.low, estimate.high)
    value, low, high = (number(part, sign=sign, places=places) for part in parts)
    return f"{value} [{low},{UNBROKEN}{high}]" if low else value


def number(value: float | None, *, sign: str = "", places: int = 3) -> str:
    """Format a number with fixed decimals and a typographic minus; empty for None or nan."""
    if value is None or math.isnan(value):
        return ""
    return f"{value:{sign}.{places}f}".replace("-", "−")


def with_minus(text: str) -> str:
    """Replace hyphens before numbers in a text by the minus sign that the page uses."""
    return _HYPHEN.sub("−", text)


def p_in_words(p_value: float | None) -> str:
    """Format a p-value with three decimals, or as `< 0.001`."""
    if p_value is None or math.isnan(p_value):
        return ""
    return f"{p_value:.3f}" if p_value >= 0.001 else "< 0.001"


def p_phrase(p_value: float | None, how: str) -> str:
    """Format a p-value as `, p = 0.031 by Holm`; empty if there was no test."""
    words = p_in_words(p_value)
    return f", p {words if words.startswith('<') else f'= {words}'} {how}" if words else ""


def config_label(config: ConfigSummary) -> str:
    """Return the method of a repeated config, followed by the searched or tuned values."""
    settings = with_minus(settings_of(config))
    return f"{config.method} ({settings.replace('_', ' ')})" if settings else config.method


def counted(count: int, noun: str) -> str:
    """Format a count with a noun: `1 trial`, `2 trials`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def duration(seconds: float) -> str:
    """Format a time in a readable unit."""
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"
