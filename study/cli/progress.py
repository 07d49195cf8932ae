"""Progress display on stderr: one line per ended trial, and on a terminal a bar below these lines."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import TracebackType
from typing import Final, TextIO

from rich.console import Console

from study.ledger.entry import TrialEntry
from study.ledger.ledger import StudyLedger
from study.ledger.no_gain import no_gain_text
from study.plan.plan import StudyPlan
from study.plan.size import confirm_trials
from trainables.display.failures import one_line
from trainables.display.numbers import GAP_PLACES, counted, format_number
from trainables.display.progress import CountedBar, time_left
from trainables.spec.measures import SHARPNESS_GAP

_SECONDS_BETWEEN_LINES: Final = 10.0
_STYLES: Final = {"pruned": "bright_black", "failed": "red"}


class StudyProgress:
    """Progress display for a study.

    Args:
        plan: study plan.
        quiet: show nothing.
        stream: output stream, by default stderr, because stdout is for results only.
    """

    def __init__(self, plan: StudyPlan, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stderr, quiet=quiet, highlight=False, soft_wrap=True)
        self._total = plan.total_trials + confirm_trials(plan)
        self._began: float | None = None
        self._done_before = 0
        self._warned: set[str] = set()
        self._until = plan.until
        self._bar = CountedBar.on_terminal(self._console, "trials", self._total)

    def __enter__(self) -> "StudyProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str, *, style: str = "") -> None:
        """Print a line about the current work.

        Args:
            text: the line.
            style: colour on a terminal; unused for a file or pipe.
        """
        self._console.print(text, markup=False, style=style or None)

    def warn(self, text: str) -> None:
        """Print a warning once, even if several processes report it."""
        if text not in self._warned:
            self._warned.add(text)
            self.say(f"warning: {text}")

    @contextmanager
    def counting(self, name: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """Show progress of a counted task: a bar on a terminal, a line every ten seconds otherwise.

        Args:
            name: name of the counted items.
            total: final count.

        Yields:
            A function with two arguments: the current count, and a text with further information.
        """
        bar, last_line = CountedBar.on_terminal(self._console, name, total), time.monotonic()

        def changed(done: int, state: str) -> None:
            nonlocal last_line
            if bar is not None:
                bar.update(done, state)
            elif time.monotonic() - last_line > _SECONDS_BETWEEN_LINES:
                last_line = time.monotonic()
                self.say(f"{name} [{done}/{total}] {state}")

        with bar or nullcontext():
            yield changed

    def trial_changed(self, entry: TrialEntry, ledger: StudyLedger) -> None:
        """Update the display after a trial has reported or ended."""
        if self._console.quiet:
            return
        ended, self._total = ledger.ended, ledger.planned
        if self._began is None:
            self._began, self._done_before = time.monotonic(), ended
        if self._bar is not None:
            self._bar.update(ended, self._state(ledger, ended), total=self._total)
        if entry.status is not None:
            self.say(f"[{ended}/{self._total}] {trial_line(entry)}", style=_STYLES.get(entry.status, ""))
            if self._until is not None and entry.stage == "search":
                self._say_end_of_search(ledger)

    def _say_end_of_search(self, ledger: StudyLedger) -> None:
        """Say once that the search has ended without gain."""
        text = no_gain_text(ledger.plan, ledger.in_stage("search"))
        if text is not None:
            self._until = None
            self.say(text[0].lower() + text[1:].removesuffix("."))

    def _state(self, ledger: StudyLedger, ended: int) -> str:
        parts = [f"{len(ledger.unfinished)} running"]
        parts += [f"{ledger.count('pruned')} stopped early"] if ledger.count("pruned") else []
        parts += [f"{ledger.count('failed')} failed"] if ledger.count("failed") else []
        finished = [entry for entry in ledger.entries.values() if entry.status == "finished"]
        if finished:
            best = max(finished, key=lambda entry: entry.score)
            parts.append(f"best {format_number(best.score)} ({best.name})")
        if self._began is not None and (left := time_left(self._began, ended - self._done_before, self._total - ended)):
            parts.append(left)
        return ", ".join(parts)


def trial_line(entry: TrialEntry) -> str:
    """Return one line about an ended trial: name, objective, sharpness gap and seconds."""
    epochs = counted(len(entry.epochs), "epoch")
    outcome = {"finished": "", "pruned": f" stopped early after {epochs}", "failed": f" FAILED after {epochs}"}
    gap = format_number(entry.last.get(SHARPNESS_GAP), GAP_PLACES)
    values = [
        f"{entry.objective} {format_number(entry.score) or 'unknown'}",
        *([f"gap {gap}"] if gap else []),
        f"{entry.seconds:.1f} s",
    ]
    reason = f": {one_line(entry.error)}" if entry.error else ""
    return f"{entry.stage} {entry.name}{outcome[entry.status or 'failed']}, {', '.join(values)}{reason}"
