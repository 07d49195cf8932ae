"""Axes not stretched by outliers: a window on the bulk of the values, with marks for the values outside.

A diverged trial can have a gap of 127 nats if all others lie below 2. Drawn to scale, it would flatten the figure. The
window leaves out as few values as possible, at most a fifth. It leaves them out only if they lie far from all others
and the axis would be at least five times as long with them. Values outside are drawn at the window edge as triangles,
with their value.
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
APART: Final = 2.0  # distance from the inside values to the nearest outside value, in units of the inside range
_MOST: Final = 0.2  # largest fraction of values outside
_FEWEST: Final = 5  # among four values, none can be called the outlier
_PAD: Final = 0.08  # room beyond the inside values, as a fraction of their range
_LEAST_FALL: Final = 0.05  # in score units; a smaller drop is no collapse
MOST_NAMED: Final = 4  # values written at one edge; more would overlap


@dataclass(frozen=True)
class Window:
    """Axis range.

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
        """Return a mask of the finite values (n,) outside."""
        given = np.asarray(values, dtype=np.float64)
        return np.isfinite(given) & ((given < self.low) | (given > self.high))

    def clip(self, values: Sequence[float] | Floats) -> Floats:
        """Return the values (n,), with outside values moved to the nearest edge."""
        given = np.asarray(values, dtype=np.float64)
        return np.where(self.outside(given), np.clip(given, self.low, self.high), given)


def find_window(values: Iterable[float], *, side: Side = "both", least: float = 0.0) -> Window:
    """Find the window for an axis.

    Args:
        values: axis values; nan and infinities are ignored.
        side: side on which values may be left out.
        least: smallest range to be saved by leaving out values.
    """
    given = np.array([value for value in values if math.isfinite(value)], dtype=np.float64)
    if len(given) < _FEWEST:
        return Window()
    away = given - np.median(given)
    removable = np.abs(away) if side == "both" else np.maximum(0.0, -away if side == "low" else away)
    ordered = given[np.argsort(removable, kind="stable")]
    lows, highs = np.minimum.accumulate(ordered), np.maximum.accumulate(ordered)
    spans = highs - lows  # (n,) range over the first k + 1 values
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
    """Find the window for a score axis, where only low values are outliers."""
    return find_window(values, side="low", least=_LEAST_FALL)


def outlier_note(values: Sequence[float] | Floats, window: Window, quantity: str, places: int = 3) -> str:
    """Describe the values outside a window as a caption sentence; empty if there are none."""
    given = np.asarray(values, dtype=np.float64)
    found = sorted(given[window.outside(given)].tolist(), key=lambda value: -abs(value - _middle(window)))
    if not found:
        return ""
    named = ", ".join(format_number(value, places) for value in found[:MOST_NAMED])
    more = f" and {len(found) - MOST_NAMED} more" if len(found) > MOST_NAMED else ""
    return f" Triangles at the edge mark points outside of the axis: {quantity} {named}{more}."


def row_window(estimates: Iterable[Estimate], *, scores: bool) -> Window:
    """Find the axis window for estimates in rows, by the estimates and their interval ends.

    Args:
        estimates: estimates in the rows.
        scores: whether these are scores, where only low values are outliers.
    """
    values = [value for each in estimates for value in (each.value, each.low, each.high)]
    return score_window(values) if scores else find_window(values)


def _middle(window: Window) -> float:
    return window.high if math.isfinite(window.high) else window.low


def limit_axes(axes: Axes, x: Window | None = None, y: Window | None = None) -> None:
    """End a panel's axes at the windows; lines, bands and bars are cut there."""
    for window, get, limit in ((x, axes.get_xlim, axes.set_xlim), (y, axes.get_ylim, axes.set_ylim)):
        if window is None or not window.is_cut:
            continue
        low, high = get()
        low, high = max(low, window.low), min(high, window.high)
        room = 0.03 * (high - low)  # so marks at the edge are fully visible
        limit(low - room, high + room)


def mark_outliers(
    axes: Axes, x: Sequence[float] | Floats, y: Sequence[float] | Floats, windows: tuple[Window, Window], *, colour: str
) -> NDArray[np.bool_]:
    """Draw points outside the windows as triangles at the edge, with their value, and return a mask of these points.

    Args:
        axes: panel.
        x: (n,).
        y: (n,).
        windows: windows for x and y.
        colour: triangle colour.
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
    """Return the triangle direction for a point outside, and the represented value.

    Args:
        x: horizontal value.
        y: vertical value.
        windows: windows for x and y.
    """
    if windows[0].outside([x])[0]:
        return ("right" if x > windows[0].high else "left"), format_number(x, 3 if abs(x) < 10 else 1)
    return ("up" if y > windows[1].high else "down"), format_number(y, 3 if abs(y) < 10 else 1)
