"""Progress display on stderr: a live line on a terminal, one line per trial otherwise."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Final, TextIO

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)

from study.ledger.ledger import StudyLedger, TrialEntry
from study.plan.plan import StudyPlan
from study.plan.size import confirm_trials

_SECONDS_BETWEEN_LINES: Final = 10.0


class StudyProgress:
    """Progress display of a study.

    Args:
        plan: study plan.
        quiet: show nothing.
        stream: output stream, by default stderr so that stdout holds only results.
    """

    def __init__(self, plan: StudyPlan, *, quiet: bool = False, stream: TextIO | None = None) -> None:
        self._console = Console(file=stream or sys.stderr, quiet=quiet, highlight=False, soft_wrap=True)
        self._total = plan.total_trials + confirm_trials(plan)
        self._began: float | None = None
        self._done_before = 0
        self._warned: set[str] = set()
        self._bar = self._new_bar("trials")
        if self._bar is not None:
            self._task = self._bar.add_task("trials", total=self._total, state="")

    def _new_bar(self, what: str) -> Progress | None:
        if not self._console.is_terminal or self._console.quiet:
            return None
        return Progress(
            SpinnerColumn(),
            TextColumn(what),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[state]}"),
            TimeElapsedColumn(),
            console=self._console,
            transient=True,
            redirect_stdout=False,  # output from Ray must not appear on the screen
        )

    def __enter__(self) -> "StudyProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line about the current work."""
        self._console.print(text, markup=False)

    def warn(self, text: str) -> None:
        """Print a warning once, even if several processes report the same one."""
        if text not in self._warned:
            self._warned.add(text)
            self.say(f"warning: {text}")

    @contextmanager
    def counting(self, what: str, total: int) -> Iterator[Callable[[int, str], None]]:
        """Show progress of a counted task: a bar on a terminal, a line every ten seconds otherwise.

        Args:
            what: name of the counted items.
            total: final count.

        Yields:
            A function taking the current count and a text with further information.
        """
        bar, said = self._new_bar(what), time.monotonic()
        task = bar.add_task(what, total=total, state="") if bar is not None else None

        def changed(done: int, state: str) -> None:
            nonlocal said
            if bar is not None and task is not None:
                bar.update(task, completed=done, state=state)
            elif time.monotonic() - said > _SECONDS_BETWEEN_LINES:
                said = time.monotonic()
                self.say(f"{what} [{done}/{total}] {state}")

        if bar is not None:
            bar.start()
        try:
            yield changed
        finally:
            if bar is not None:
                bar.stop()

    def trial_changed(self, entry: TrialEntry, ledger: StudyLedger) -> None:
        """Update the display after a trial has reported or ended."""
        if self._console.quiet:
            return
        ended, self._total = ledger.ended, ledger.planned
        if self._began is None:
            self._began, self._done_before = time.monotonic(), ended
        if self._bar is not None:
            self._bar.update(self._task, total=self._total, completed=ended, state=self._state(ledger, ended))
        elif entry.status is not None:
            self.say(f"[{ended}/{self._total}] {trial_line(entry)}")

    def _state(self, ledger: StudyLedger, ended: int) -> str:
        parts = [f"{len(ledger.unfinished)} running"]
        parts += [f"{ledger.count('pruned')} stopped early"] if ledger.count("pruned") else []
        parts += [f"{ledger.count('failed')} failed"] if ledger.count("failed") else []
        finished = [entry for entry in ledger.entries.values() if entry.status == "finished"]
        if finished:
            best = max(finished, key=lambda entry: entry.score)
            parts.append(f"best {best.score:.3f} ({best.name})")
        done_now = ended - self._done_before
        if done_now > 0 and self._began is not None:
            left = (time.monotonic() - self._began) / done_now * (self._total - ended)
            parts.append(f"about {duration(left)} left")
        return ", ".join(parts)


def trial_line(entry: TrialEntry) -> str:
    """Return one line about an ended trial."""
    what = {"finished": "finished", "pruned": "stopped early", "failed": "FAILED"}[entry.status or "failed"]
    epochs = f"{len(entry.epochs)} epoch{'s' if len(entry.epochs) != 1 else ''}"
    reason = f": {entry.error.splitlines()[0]}" if entry.error else ""
    return (
        f"{entry.stage} {entry.name} {what} after {epochs}, "
        f"{entry.objective} {entry.score:.3f}, {entry.seconds:.1f} s{reason}"
    )


def duration(seconds: float) -> str:
    """Format a duration in seconds, such as `45 s`, `12 min` or `3.5 h`."""
    if seconds < 90:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 90 * 60 else f"{seconds / 3600:.1f} h"
