"""Progress on stderr for work on many image files: a bar on a terminal, otherwise one line for long work."""

import sys
import time
from collections.abc import Iterable, Iterator
from typing import Final, TypeVar

from trainables.display.numbers import format_duration

_MANY: Final = 200  # files; fewer finish before a bar could be read
_SECONDS_BEFORE_LINE: Final = 20.0
_LEAST_SECONDS_LEFT: Final = 60.0
_hidden = False

T = TypeVar("T")


def hide_progress() -> None:
    """Disable progress output in this process."""
    global _hidden
    _hidden = True


def with_progress(results: Iterable[T], what: str, total: int) -> Iterator[T]:
    """Yield results unchanged while showing progress towards `total`.

    Args:
        results: results in order of arrival.
        what: work description, such as "reading images".
        total: number of results.
    """
    if _hidden or total < _MANY:
        yield from results
    elif sys.stderr.isatty():
        from rich.console import Console

        from trainables.display.progress import CountedBar

        with CountedBar(Console(file=sys.stderr), what, total) as bar:
            for done, result in enumerate(results, start=1):
                bar.update(done)
                yield result
    else:
        yield from _with_progress_line(results, what, total)


def _with_progress_line(results: Iterable[T], what: str, total: int) -> Iterator[T]:
    began, decided = time.monotonic(), False
    for done, result in enumerate(results, start=1):
        seconds = time.monotonic() - began
        if not decided and seconds > _SECONDS_BEFORE_LINE:
            decided = True
            left = seconds / done * (total - done)
            if left > _LEAST_SECONDS_LEFT:
                text = f"{what}: {done:,} of {total:,} done, about {format_duration(left)} left"
                print(text, file=sys.stderr, flush=True)
        yield result
