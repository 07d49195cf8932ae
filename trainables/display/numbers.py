"""Format numbers, estimates and p-values for people.

Tables, reports, model cards, notebooks and progress lines all use these functions, so one quantity looks the same
everywhere:

- Mean scores, scores in a search and score differences have three decimals. The accuracy of one network on one
  split has four, so one prediction of 10,000 shows. Gaps in nats and correlations have two, slopes per nat four.
- Negative numbers have the typographic minus sign. Numbers rounded to zero have no sign.
- A missing or nan value is an empty string, and so is the interval without bounds.
- A p-value has three decimals. A smaller one is `< 0.001`, so no p-value is shown as 0.

The module imports only the standard library. The module is in the lowest room of the lowest package, because
`trainables`, `study` and `analysis` can all import it from there.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, Protocol

SCORE_PLACES: Final = 3
NETWORK_PLACES: Final = 4
SLOPE_PLACES: Final = 4
GAP_PLACES: Final = 2
CORRELATION_PLACES: Final = 2
_MINUS: Final = "\u2212"
_LEAST_P: Final = 0.001
_UNITS: Final = ((1e6, "µs"), (1e3, "ms"), (1.0, "s"))
_THREE_DIGITS: Final = 999.5
_MINUTE, _HOUR, _DAY = 60.0, 3600.0, 86_400.0


class WithInterval(Protocol):
    """Estimate with an interval, such as `analysis.statistics.Estimate`; bounds are nan if there is no interval."""

    @property
    def value(self) -> float:
        """Estimate."""

    @property
    def low(self) -> float:
        """Lower end of the interval."""

    @property
    def high(self) -> float:
        """Upper end of the interval."""


class Tested(WithInterval, Protocol):
    """Estimate with an interval, the number of units, and a p-value if there was a test."""

    @property
    def n(self) -> int:
        """Number of independent units."""

    @property
    def p_value(self) -> float | None:
        """Two-sided p-value."""


def format_number(value: float | None, places: int = SCORE_PLACES, *, signed: bool = False) -> str:
    """Format a number with fixed decimals, such as `0.886` or `−0.012`; empty for None or nan.

    Args:
        value: the number.
        places: number of decimals.
        signed: whether a positive number gets a plus sign.
    """
    if value is None or math.isnan(value):
        return ""
    size = "\u221e" if math.isinf(value) else f"{abs(value):.{places}f}"
    if not size.strip("0."):
        return size
    return f"{_MINUS if value < 0 else '+' if signed else ''}{size}"


def format_percent(fraction: float | None, places: int = 0) -> str:
    """Format a fraction as a percentage, such as `69%`; empty for None or nan."""
    text = format_number(None if fraction is None else 100 * fraction, places)
    return f"{text}%" if text else ""


def format_points(difference: float | None, places: int = 1) -> str:
    """Format a difference of fractions in percentage points, such as `−0.9 points`; empty for None or nan."""
    text = format_number(None if difference is None else 100 * difference, places, signed=True)
    return f"{text} points" if text else ""


def format_interval(found: WithInterval, places: int = SCORE_PLACES, *, signed: bool = False) -> str:
    """Format an estimate's interval as `[0.870, 0.902]`; empty if a bound is missing."""
    low, high = format_number(found.low, places, signed=signed), format_number(found.high, places, signed=signed)
    return f"[{low}, {high}]" if low and high else ""


def format_estimate(found: WithInterval, places: int = SCORE_PLACES, *, signed: bool = False) -> str:
    """Format an estimate and interval as `0.886 [0.870, 0.902]`.

    Without an interval, only the value is shown. Without a value, the result is empty.
    """
    value = format_number(found.value, places, signed=signed)
    return f"{value} {format_interval(found, places, signed=signed)}".rstrip() if value else ""


def format_difference(found: WithInterval) -> str:
    """Format a score difference as `+0.012 [−0.003, +0.027]`."""
    return format_estimate(found, signed=True)


def format_gap(found: WithInterval) -> str:
    """Format a sharpness gap in nats as `1.44 [1.22, 1.66]`."""
    return format_estimate(found, GAP_PLACES)


def format_slope(found: WithInterval) -> str:
    """Format a score's change per nat as `−0.0123 [−0.0170, −0.0076]`."""
    return format_estimate(found, SLOPE_PLACES, signed=True)


def format_correlation(found: WithInterval) -> str:
    """Format a correlation as `−0.68 [−0.91, −0.04]`."""
    return format_estimate(found, CORRELATION_PLACES, signed=True)


def format_plus_minus(found: WithInterval, places: int = SCORE_PLACES, *, signed: bool = False) -> str:
    """Format an estimate as `0.886 ± 0.016`, for tables without room for both ends of the interval.

    The number after ± is half the interval's width. If one end was clipped to the possible range, it is the longer
    half.
    """
    value = format_number(found.value, places, signed=signed)
    half = format_number(max(found.high - found.value, found.value - found.low), places)
    return f"{value} ± {half}" if value and half else value


def format_in_full(found: Tested, places: int = SCORE_PLACES, *, signed: bool = False) -> str:
    """Format an estimate with interval, p-value and n, as `+0.012 [−0.003, +0.027], p = 0.094, n = 6`."""
    if math.isnan(found.value):
        return f"undefined, n = {found.n}"
    bounds = format_interval(found, places, signed=signed) or "(no interval)"
    value = format_number(found.value, places, signed=signed)
    return f"{value} {bounds}{p_clause(found.p_value)}, n = {found.n}"


def format_p(p: float | None) -> str:
    """Format a p-value for a table, such as `0.031` or `< 0.001`; empty if there was no test."""
    if p is None or math.isnan(p):
        return ""
    return f"{p:.3f}" if p >= _LEAST_P else f"< {_LEAST_P}"


def p_clause(p: float | None, how: str = "") -> str:
    """Format a p-value as the clause of a sentence, such as `, p = 0.031` or `, p < 0.001 by Holm`.

    Args:
        p: p-value; the clause is empty if there was no test.
        how: clause end, such as the correction.
    """
    text = format_p(p)
    return f", p {text if text.startswith('<') else f'= {text}'}{how and f' {how}'}" if text else ""


def p_bound(p: float) -> str:
    """Format a test's smallest possible p-value, with two significant digits.

    The bound of an exact test can lie far below 0.001, and the number itself then matters.
    """
    return f"{min(1.0, p):.2g}"


def counted(count: int, noun: str) -> str:
    """Format a count with a noun, such as `1 trial` or `2,000 trials`."""
    return f"{count:,} {noun}{'' if count == 1 else 's'}"


def listed(names: Sequence[str]) -> str:
    """Join names as `a`, `a and b` or `a, b and c`; `nothing` for no names."""
    if len(names) < 2:
        return names[0] if names else "nothing"
    return f"{', '.join(names[:-1])} and {names[-1]}"


def format_settings(values: Mapping[str, Any]) -> str:
    """Format names and values as `temperature 4, learning_rate 0.0447`, floats with three significant digits."""
    return ", ".join(f"{name} {_setting(value)}" for name, value in values.items())


def _setting(value: Any) -> str:
    text = f"{value:.3g}" if isinstance(value, float) else str(value)
    return text.replace("-", _MINUS, 1) if isinstance(value, int | float) and text.startswith("-") else text


def format_latency(seconds: float, low: float = math.nan, high: float = math.nan) -> str:
    """Format the time of one run with three digits, as `27.2 µs [17.6, 35.5]` or `1.4 ms`.

    Args:
        seconds: the time, usually a median.
        low: lower end of the runs' range, shown in the unit of `seconds`; nan without a range.
        high: upper end of the range.
    """
    factor, unit = next((each for each in _UNITS if seconds * each[0] < _THREE_DIGITS), (1.0, "s"))
    value, *ends = (
        f"{each * factor:.3g}" if each * factor < _THREE_DIGITS else f"{each * factor:.0f}"
        for each in (seconds, low, high)
    )
    return f"{value} {unit}" if math.isnan(low) or math.isnan(high) else f"{value} {unit} [{', '.join(ends)}]"


def format_duration(seconds: float) -> str:
    """Format a time in a readable unit, such as `4.2 s`, `45 s`, `12 min`, `3.5 h` or `2.1 d`."""
    if seconds < 1.5 * _MINUTE:
        return f"{seconds:.{0 if seconds >= 10 else 1}f} s"
    if seconds < 1.5 * _HOUR:
        return f"{seconds / _MINUTE:.0f} min"
    return f"{seconds / _HOUR:.1f} h" if seconds < 2 * _DAY else f"{seconds / _DAY:.1f} d"
