"""Place point names in a figure without overlap between two names, or between a name and a point.

A chart has one layout for all screens, but letters keep their width. Names with space between them on a wide screen may
overlap on a phone, and the other way round. Positions are therefore tested on panels with several widths.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

WIDTHS: Final = (270.0, 450.0, 650.0, 980.0)  # panel widths in pixels, on a phone and on wider screens
HEIGHT: Final = 330.0  # panel height in pixels, on all screens
LETTER: Final = (6.4, 15.0)  # letter width and height in pixels, including spacing
AWAY: Final = 14.0  # pixels between a point and the name
_MARKER: Final = 10.0  # point diameter in pixels
_MOST_LETTERS: Final = 18  # letters per line; names are broken between words
_HALF: Final = 0.5


@dataclass(frozen=True)
class Box:
    """Occupied area in a panel.

    Args:
        up: centre height, as a fraction of the panel.
        height: box height, as a fraction of the panel.
        ends: left and right end as fractions of the panel, for each of `WIDTHS`.
    """

    up: float
    height: float
    ends: tuple[tuple[float, float], ...]

    def covers(self, other: "Box") -> bool:
        """Return whether the two boxes overlap on any screen."""
        if abs(self.up - other.up) >= self.least_apart(other):
            return False
        return any(own[0] < its[1] and its[0] < own[1] for own, its in zip(self.ends, other.ends, strict=True))

    def least_apart(self, other: "Box") -> float:
        """Return the smallest vertical distance between the centres of two boxes without overlap."""
        return (self.height + other.height) / 2


@dataclass(frozen=True)
class Label(Box):
    """Point name.

    Args:
        lines: lines in the name.
        to_left: whether the name is to the left of the point.
    """

    lines: tuple[str, ...]
    to_left: bool


def place_labels(points: Sequence[tuple[float, float, str]]) -> list[Label]:
    """Place each point's label next to the point, moved up or down as little as needed.

    Args:
        points: for each point, the horizontal and vertical position as fractions of the panel, and the name. A point
            with an empty name is only an obstacle.

    Returns:
        Labels for the named points, in point order. A label may lie above the panel, but not below it.
    """
    taken = [_marker(across, up) for across, up, _ in points]
    placed: dict[int, Label] = {}
    for number in sorted((i for i, point in enumerate(points) if point[2]), key=lambda i: points[i][1]):
        across, up, name = points[number]
        label = _nearest(_beside(across, up, name), taken)
        placed[number] = label
        taken.append(label)
    return [placed[number] for number in sorted(placed)]


def _nearest(label: Label, taken: Sequence[Box]) -> Label:
    """Move the label to the nearest height without overlap; a position above all others always exists."""
    # A small margin is added, because sums of fractions are not exact.
    heights = [each.up + side * label.least_apart(each) for each in taken for side in (-1.001, 1.001)]
    lowest = min(label.up, label.height / 2)
    for up in sorted((label.up, *heights), key=lambda height: abs(height - label.up)):
        moved = replace(label, up=up)
        if up >= lowest and not any(moved.covers(each) for each in taken):
            return moved
    raise AssertionError("the place above all others is taken")


def _marker(across: float, up: float) -> Box:
    ends = tuple((across - _MARKER / 2 / width, across + _MARKER / 2 / width) for width in WIDTHS)
    return Box(up, _MARKER / HEIGHT, ends)


def _beside(across: float, up: float, name: str) -> Label:
    lines = tuple(textwrap.wrap(name, _MOST_LETTERS, break_long_words=False))
    far, to_left = AWAY + LETTER[0] * max(map(len, lines)), across > _HALF
    sides = (-far, -AWAY) if to_left else (AWAY, far)
    ends = tuple((across + sides[0] / width, across + sides[1] / width) for width in WIDTHS)
    return Label(up, LETTER[1] * len(lines) / HEIGHT, ends, lines, to_left)
