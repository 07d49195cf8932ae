"""Axes that outliers do not stretch: a window on the bulk of the values, with marks for the values outside.

A diverged trial can have a gap of 127 nats where all others lie below 2. Drawn to scale, it would flatten the figure.
The window leaves out as few values as possible, at most a fifth, and only if they lie far from all others and the axis
would be at least five times as long with them. Values outside are drawn at the edge of the window as triangles, with
their value.
"""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

import numpy as np
from matplotlib.axes import Axes
from numpy.typing import NDArray

from analysis.statistics.estimates import Estimate
from analysis.statistics.resampling import Floats
from trainables.display.numbers import format_number

Side = Literal["low", "high", "both"]

SHRINKS: Final = 5.0
APART: Final = 2.0  # distance of the nearest value outside from those inside, in ranges of those inside
_MOST: Final = 0.2  # share of values that may lie outside
_FEWEST: Final = 5  # of four values, none can be called the outlier
_PAD: Final = 0.08  # room beyond the values inside, as a fraction of their range
_LEAST_FALL: Final = 0.05  # of a score; a smaller drop is no collapse
MOST_NAMED: Final = 4  # values written at one edge; more would overlap


@dataclass(frozen=True)
class Window:
    """Range of an axis.

    Args:
        low: lower edge; -inf if nothing below is left out.
        high: upper edge; inf if nothing above is left out.
    """

    low: float = -math.inf
    high: float = math.inf

    @property
    def is_cut(self) -> bool:
        """Whether a value lies outside."""
        return math.isfinite(self.low) or math.isfinite(self.high)

    def outside(self, values: Sequence[float] | Floats) -> NDArray[np.bool_]:
        """Return which finite values (n,) lie outside."""
        given = np.asarray(values, dtype=np.float64)
        return np.isfinite(given) & ((given < self.low) | (given > self.high))

    def clip(self, values: Sequence[float] | Floats) -> Floats:
        """Return the values (n,), with those outside moved to the nearest edge."""
        given = np.asarray(values, dtype=np.float64)
        return np.where(self.outside(given), np.clip(given, self.low, self.high), given)


def find_window(values: Iterable[float], *, side: Side = "both", least: float = 0.0) -> Window:
    """Find the window of an axis.

    Args:
        values: values of the axis; nan and infinities are ignored.
        side: side on which values may be left out.
        least: smallest range that leaving out values must save.
    """
    given = np.array([value for value in values if math.isfinite(value)], dtype=np.float64)
    if len(given) < _FEWEST:
        return Window()
    away = given - np.median(given)
    removable = np.abs(away) if side == "both" else np.maximum(0.0, -away if side == "low" else away)
    ordered = given[np.argsort(removable, kind="stable")]
    lows, highs = np.minimum.accumulate(ordered), np.maximum.accumulate(ordered)
    spans = highs - lows  # (n,) range of the first k + 1 values
    fewest = len(given) - max(1, int(_MOST * len(given)))
    kept = len(given)
    for count in range(len(given) - 1, fewest - 1, -1):
        saved = spans[kept - 1] - spans[count - 1]
        away_from_rest = max(lows[count - 1] - ordered[count], ordered[count] - highs[count - 1])
        apart = away_from_rest >= APART * spans[count - 1]
        if apart and spans[kept - 1] >= SHRINKS * spans[count - 1] and saved > least:
            kept = count
    if kept == len(given):
        return Window()
    inside, left_out = ordered[:kept], ordered[kept:]
    span = float(spans[kept - 1]) or abs(float(inside[0])) or 1.0
    low, high = float(inside.min()), float(inside.max())
    return Window(
        low - _PAD * span if (left_out < low).any() else -math.inf,
        high + _PAD * span if (left_out > high).any() else math.inf,
    )


def score_window(values: Iterable[float]) -> Window:
    """Find the window of an axis of scores, where only low values are outliers."""
    return find_window(values, side="low", least=_LEAST_FALL)


def outlier_note(values: Sequence[float] | Floats, window: Window, quantity: str, places: int = 3) -> str:
    """Describe the values outside of a window as a sentence for a caption; empty if there are none."""
    given = np.asarray(values, dtype=np.float64)
    found = sorted(given[window.outside(given)].tolist(), key=lambda value: -abs(value - _middle(window)))
    if not found:
        return ""
    named = ", ".join(format_number(value, places) for value in found[:MOST_NAMED])
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return f" Triangles at the edge mark points outside of the axis: {quantity} {named}{more}."


def row_window(estimates: Iterable[Estimate], *, scores: bool) -> Window:
    """Find the window of an axis with estimates in rows, by their values and the ends of their intervals.

    Args:
        estimates: estimates of the rows.
        scores: whether they are scores, where only low values are outliers.
    """
    values = [value for each in estimates for value in (each.value, each.low, each.high)]
    return score_window(values) if scores else find_window(values)


def _middle(window: Window) -> float:
    return window.high if math.isfinite(window.high) else window.low


def limit_axes(axes: Axes, x: Window | None = None, y: Window | None = None) -> None:
    """End the axes of a panel at the windows; lines, bands and bars are cut there."""
    for window, get, limit in ((x, axes.get_xlim, axes.set_xlim), (y, axes.get_ylim, axes.set_ylim)):
        if window is None or not window.is_cut:
            continue
        low, high = get()
        low, high = max(low, window.low), min(high, window.high)
        room = 0.03 * (high - low)  # so that marks at the edge are seen whole
        limit(low - room, high + room)


def mark_outliers(
    axes: Axes, x: Sequence[float] | Floats, y: Sequence[float] | Floats, windows: tuple[Window, Window], *, colour: str
) -> NDArray[np.bool_]:
    """Draw the points outside of the windows as triangles at the edge, with their value, and return which they are.

    Args:
        axes: panel.
        x: (n,).
        y: (n,).
        windows: windows of x and y.
        colour: colour of the triangles.
    """
    across, up = np.asarray(x, dtype=np.float64), np.asarray(y, dtype=np.float64)
    outside = windows[0].outside(across) | windows[1].outside(up)
    named = 0
    for at, height in zip(across[outside], up[outside], strict=True):
        marker, texts = mark_of(float(at), float(height), windows)
        place = float(windows[0].clip([at])[0]), float(windows[1].clip([height])[0])
        axes.plot(*place, marker={"right": ">", "left": "<", "up": "^", "down": "v"}[marker], color=colour, zorder=5)
        if named < MOST_NAMED:
            named += 1
            shift = {"right": (-6, 0, "right"), "left": (6, 0, "left"), "up": (5, -4, "left"), "down": (5, 2, "left")}
            dx, dy, align = shift[marker]
            axes.annotate(
                texts, place, (dx, dy), textcoords="offset points", ha=align, va="center", fontsize=7, color=colour
            )
    return outside


def mark_of(x: float, y: float, windows: tuple[Window, Window]) -> tuple[Literal["left", "right", "up", "down"], str]:
    """Return the direction of the triangle of a point outside, and the value it stands for.

    Args:
        x: horizontal value.
        y: vertical value.
        windows: windows of x and y.
    """
    if windows[0].outside([x])[0]:
        return ("right" if x > windows[0].high else "left"), format_number(x, 3 if abs(x) < 10 else 1)
    return ("up" if y > windows[1].high else "down"), format_number(y, 3 if abs(y) < 10 else 1)
