"""Names beside the points of a figure, placed so that none lies on another or on a point.

A chart has one layout for every screen: what is apart on a wide one may lie on another on a phone, and the other way
round, since letters stay as wide as they are. Places are therefore tried on panels of several widths.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

WIDTHS: Final = (270.0, 450.0, 650.0, 980.0)  # pixels of a panel, on a phone and on wider screens
HEIGHT: Final = 330.0  # the same upwards, on all of them
LETTER: Final = (6.4, 15.0)  # pixels of a letter, the space around it included
AWAY: Final = 14.0  # pixels from a point to its name
_MARKER: Final = 10.0  # pixels of a point
_MOST_LETTERS: Final = 18  # of a line; names are broken between words
_HALF: Final = 0.5


@dataclass(frozen=True)
class Box:
    """What takes room in a panel.

    Args:
        up: height of its middle, as a fraction of the panel.
        height: its own, likewise.
        ends: its left and right end as fractions of the panel, for each of `WIDTHS`.
    """

    up: float
    height: float
    ends: tuple[tuple[float, float], ...]

    def covers(self, other: "Box") -> bool:
        """Whether one of the two lies on the other, on any screen."""
        if abs(self.up - other.up) >= self.least_apart(other):
            return False
        return any(own[0] < its[1] and its[0] < own[1] for own, its in zip(self.ends, other.ends, strict=True))

    def least_apart(self, other: "Box") -> float:
        """How far apart their middles have to be if one is above the other."""
        return (self.height + other.height) / 2


@dataclass(frozen=True)
class Label(Box):
    """A name.

    Args:
        lines: of it.
        to_left: whether it stands to the left of its point.
    """

    lines: tuple[str, ...]
    to_left: bool


def place_labels(points: Sequence[tuple[float, float, str]]) -> list[Label]:
    """The labels of these points, each beside its own or as little above or below as it must be.

    Args:
        points: of each how far it is across and up, as fractions of the panel, and its name; nothing for one that is
            in the way only.

    Returns:
        Of the points with a name, in their order; the highest may stand above the panel, none below it.
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
    """The label as near to its height as it covers nothing; above all that is taken there always is a place."""
    # A hair more than needed: sums of fractions are not exact.
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
