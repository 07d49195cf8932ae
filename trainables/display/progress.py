"""Bar for a counted task on a terminal."""

import time
from types import TracebackType
from typing import Final

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from trainables.display.numbers import format_duration

_WIDE: Final = 120  # columns of a terminal with room for a full-length bar
_BAR: Final = 40
_SHORT_BAR: Final = 10
_ELAPSED: Final = len("0:00:00")


class CountedBar:
    """Bar with a count of finished items, a text and the elapsed time. The bar disappears when it stops.

    Args:
        console: the bar's console.
        name: name of the counted items.
        total: final count.
    """

    def __init__(self, console: Console, name: str, total: int) -> None:
        self._progress = Progress(
            SpinnerColumn(),
            TextColumn("{task.description}", markup=False),
            BarColumn(bar_width=_BAR if console.width >= _WIDE else _SHORT_BAR),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}", markup=False),
            TimeElapsedColumn(),
            console=console,
            transient=True,
            redirect_stdout=False,  # output from Ray must not appear on the screen
        )
        self._name, self._total = name, total
        self._task = self._progress.add_task(name, total=total, state="")

    @classmethod
    def on_terminal(cls, console: Console, name: str, total: int) -> "CountedBar | None":
        """Return a bar, or None if the console is quiet or writes to a file or pipe."""
        return cls(console, name, total) if console.is_terminal and not console.quiet else None

    def start(self) -> None:
        """Show the bar."""
        self._progress.start()

    def stop(self) -> None:
        """Remove the bar."""
        self._progress.stop()

    def __enter__(self) -> "CountedBar":
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.stop()

    def update(self, done: int, state: str = "", *, total: int | None = None) -> None:
        """Show a new count.

        Args:
            done: number of finished items.
            state: text after the count.
            total: new final count; None if it has not changed.
        """
        self._total = self._total if total is None else total
        self._progress.update(self._task, completed=done, state=self._cut(state), total=total)

    def _cut(self, state: str) -> str:
        """Return the text, cut to the room next to bar, count and time: rich would cut all of them alike."""
        width = self._progress.console.width
        parts = (1, len(self._name), _BAR if width >= _WIDE else _SHORT_BAR, 2 * len(str(self._total)) + 1, _ELAPSED)
        room = max(1, width - sum(parts) - len(parts))
        return state if len(state) <= room else f"{state[: room - 1].rstrip()}…"


def time_left(began: float, done: int, left: int) -> str:
    """Estimate the time for the remaining items, as `about 12 min left`; empty if unknown or zero.

    Args:
        began: start time, by `time.monotonic`.
        done: items finished since the start.
        left: remaining items.
    """
    if done <= 0 or left <= 0:
        return ""
    return f"about {format_duration((time.monotonic() - began) / done * left)} left"
