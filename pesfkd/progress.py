"""Study progress in a notebook: one text block, updated in place."""

import html
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any, Final

from pesfkd.messages import in_python
from study.cli.progress import StudyProgress, trial_line
from study.ledger.entry import TrialEntry
from study.ledger.ledger import StudyLedger
from study.plan.plan import StudyPlan

_LINES: Final = 6
_SECONDS_BETWEEN_CHANGES: Final = 0.2


def progress_of(plan: StudyPlan, *, quiet: bool) -> StudyProgress:
    """Return the progress display for this process: a block in a notebook, else a bar or lines on stderr.

    Args:
        plan: the study.
        quiet: whether to show nothing.
    """
    if quiet or not in_notebook():
        return PythonProgress(plan, quiet=quiet)
    return NotebookProgress(plan)


def in_notebook() -> bool:
    """Return whether this process is a notebook kernel."""
    ipython = sys.modules.get("IPython")
    shell = None if ipython is None else ipython.get_ipython()
    return shell is not None and getattr(shell, "kernel", None) is not None


class PythonProgress(StudyProgress):
    """Progress display with parameter names in place of flags."""

    def say(self, text: str, *, style: str = "") -> None:
        """Print a line about the current work."""
        super().say(in_python(text), style=style)


class NotebookProgress(StudyProgress):
    """Progress display for a study in a notebook: a bar, the last lines, and all warnings.

    Args:
        plan: the study.
    """

    def __init__(self, plan: StudyPlan) -> None:
        super().__init__(plan, quiet=True)
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._warnings: list[str] = []
        self._count: tuple[str, int, int] | None = None
        self._state_text = ""
        self._handle: Any = None
        self._shown = 0.0
        self._showing = threading.Lock()  # MLflow's delivery reports from a separate thread

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._show()

    def say(self, text: str, *, style: str = "") -> None:  # noqa: ARG002 - a notebook shows no colours
        """Show a line about the current work."""
        text = in_python(text)
        if text.startswith("warning: "):
            self._warnings.append(text)
        else:
            self._lines.append(text)
        self._show()

    @contextmanager
    def counting(self, name: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """Show the progress of a counted task."""

        def changed(done: int, state: str) -> None:
            self._count, self._state_text = (name, done, total), state
            self._show(soon=True)

        yield changed
        self._count, self._state_text = None, ""
        self._show()

    def trial_changed(self, entry: TrialEntry, ledger: StudyLedger) -> None:
        """Update the display after a trial has reported or ended."""
        ended = ledger.ended
        self._total = ledger.planned
        if self._began is None:
            self._began, self._done_before = time.monotonic(), ended
        self._count, self._state_text = ("trials", ended, self._total), self._state(ledger, ended)
        if entry.status is not None:
            self._lines.append(trial_line(entry))
        self._show(soon=ended < self._total)

    def _show(self, *, soon: bool = False) -> None:
        """Draw the block, or leave it as it is for a moment."""
        with self._showing:
            if soon and time.monotonic() - self._shown < _SECONDS_BETWEEN_CHANGES:
                return
            self._shown = time.monotonic()
            content = {"text/html": self._as_html(), "text/plain": self._as_text()}
            if self._handle is None:
                from IPython.display import display

                self._handle = display(content, raw=True, display_id=True)
            elif self._handle is not None:
                self._handle.update(content, raw=True)

    def _head(self) -> str:
        if self._count is None:
            return ""
        name, done, total = self._count
        return f"{name} {done}/{total} {self._state_text}"

    def _as_text(self) -> str:
        return "\n".join(part for part in (self._head(), *self._warnings, *self._lines) if part)

    def _as_html(self) -> str:
        bar = ""
        if self._count is not None:
            _, done, total = self._count
            bar = f'<progress value="{done}" max="{total}" style="width:16em"></progress> {html.escape(self._head())}'
        lines = html.escape("\n".join([*self._warnings, *self._lines]))
        return f'<div>{bar}<pre style="margin:0">{lines}</pre></div>'
