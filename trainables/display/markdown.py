"""Tables in Markdown."""

from collections.abc import Iterable, Sequence


def markdown_rows(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    """Return a table's lines, with the first column to the left and numbers to the right."""
    ruler = ("---", *("---:" for _ in heads[1:]))
    return [f"| {' | '.join(line)} |" for line in (heads, ruler, *rows)]
