"""Tables for a terminal: they fit the width, and every name is complete.

Names are broken at spaces. A word is broken only if it is longer than the column, if possible after one of
`+ _ - / , : = .`. To make room for names, the second part of a value (e.g. the interval) moves to a second line, in the
widest column first.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Final

from rich.cells import cell_len
from rich.table import Table
from rich.text import Text

NARROWEST: Final = 80  # width of the narrowest supported terminal
_WANTED: Final = 20  # above this width of a name column, values are not broken to make room
_JOINT: Final = re.compile(r"(?<=[+_\-/,:=.])(?=\w)")
_PARTS: Final = (" [", " ± ", ", p ")
_HEAD_PARTS: Final = (" (", " - ", ", ")
_GAP: Final = 1


@dataclass(frozen=True)
class Column:
    """Table column.

    Args:
        head: column head; line breaks are kept.
        cells: text for each row.
        is_name: whether the cells are names. Names are wrapped at spaces and aligned to the left.
    """

    head: str
    cells: tuple[str, ...]
    is_name: bool = False

    @property
    def width(self) -> int:
        """Width of the longest line."""
        return max(cell_len(line) for text in (self.head, *self.cells) for line in text.split("\n"))

    @property
    def narrow(self) -> "Column":
        """This column with the second part of each value on a second line."""
        return replace(self, head=_broken(self.head, _HEAD_PARTS), cells=tuple(_broken(c, _PARTS) for c in self.cells))

    @property
    def longest_word(self) -> int:
        """Width of the longest word."""
        return max((cell_len(word) for text in (self.head, *self.cells) for word in text.split()), default=1)


def fitted_table(columns: Sequence[Column], width: int) -> Table:
    """Return a table fitting the width, if the values leave room for the names.

    Args:
        columns: columns with equal numbers of cells; at least one has names.
        width: width of the terminal, at least 80.
    """
    shown, room = list(columns), max(width, NARROWEST)
    while _least(shown) > room:
        breakable = [each for each in shown if not each.is_name and each.narrow.width < each.width]
        if not breakable:
            break
        widest = max(breakable, key=lambda each: each.width)
        shown[shown.index(widest)] = widest.narrow
    widths = _widths(shown, room)
    table = Table(box=None, pad_edge=False, header_style="bold", padding=(0, _GAP, 0, 0))
    cells = []
    for column, own in zip(shown, widths, strict=True):
        head, texts = column.head, column.cells
        if column.is_name:
            head, texts = wrapped(head, own), tuple(wrapped(text, own) for text in texts)
        table.add_column(Text(head), justify="left" if column.is_name else "right", no_wrap=True, min_width=own)
        cells.append(texts)
    for row in zip(*cells, strict=True):
        table.add_row(*map(Text, row))
    return table


def _least(columns: Sequence[Column]) -> int:
    """Return the columns' minimum total width, with room for names."""
    return sum(
        (max(each.longest_word, min(each.width, _WANTED)) if each.is_name else each.width) + _GAP for each in columns
    )


def _widths(columns: Sequence[Column], room: int) -> list[int]:
    """Return each column's width. The name columns share the room left by the others."""
    names = [each for each in columns if each.is_name]
    left = room - sum(each.width for each in columns if not each.is_name) - _GAP * len(columns)
    share = max(1, left // len(names))
    widths = [min(each.width, share) if each.is_name else each.width for each in columns]
    for place, each in enumerate(columns):  # the next name column gets unused room
        spare = max(0, room - _GAP * len(columns) - sum(widths))
        widths[place] = min(each.width, widths[place] + spare)
    return widths


def wrapped(text: str, width: int) -> str:
    """Wrap each line of a text at spaces. Break longer words after a joint, or else at the width.

    Args:
        text: one or more lines; each line's indent is kept.
        width: maximum line width.
    """
    return "\n".join(part for line in text.split("\n") for part in _lines_of(line, width))


def _lines_of(line: str, width: int) -> list[str]:
    indent = line[: len(line) - len(line.lstrip())]
    lines, room = [indent], max(1, width - len(indent))
    for word in line.split():
        is_first = lines[-1] == indent
        if cell_len(lines[-1]) + (not is_first) + cell_len(word) <= max(width, 1):
            lines[-1] += word if is_first else f" {word}"
            continue
        pieces = [word] if cell_len(word) <= room else _pieces(word, room)
        if is_first:
            lines[-1] += pieces.pop(0)
        lines += [indent + piece for piece in pieces]
    return lines


def _pieces(word: str, room: int) -> list[str]:
    """Break a long word after joints, each piece as long as possible."""
    pieces = [""]
    for part in _JOINT.split(word):
        if cell_len(pieces[-1] + part) <= room:
            pieces[-1] += part
        else:
            cut = [part[place : place + room] for place in range(0, len(part), room)]
            pieces += cut
    return [piece for piece in pieces if piece]


def _broken(text: str, parts: Sequence[str]) -> str:
    for part in parts:
        text = text.replace(part, "\n" + part.lstrip(", "))
    return text
