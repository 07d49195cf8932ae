"""Progress of a teacher's training on stderr: a bar on a terminal, otherwise one line per epoch."""

import sys
import time
from types import TracebackType

from rich.console import Console

from trainables.display.numbers import NETWORK_PLACES, format_number
from trainables.display.progress import CountedBar, time_left
from trainables.teacher.request import TeacherRequest


class TeacherProgress:
    """Training progress display.

    Args:
        request: request for the teacher.
        quiet: whether to show nothing.
    """

    def __init__(self, request: TeacherRequest, *, quiet: bool = False) -> None:
        self._console = Console(file=sys.stderr, quiet=quiet, highlight=False, soft_wrap=True)
        self._request = request
        self._total = request.recipe.epochs
        self._began = time.monotonic()
        self._done_before = 0
        self.done = 0
        self._bar = CountedBar.on_terminal(self._console, "epochs", self._total)

    def __enter__(self) -> "TeacherProgress":
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Print a line on the current work."""
        self._console.print(text, markup=False)

    def warn(self, text: str) -> None:
        """Print a warning."""
        self.say(f"warning: {text}")

    def begun(self, epochs: int) -> None:
        """Show the start of a training.

        Args:
            epochs: number of epochs finished by earlier runs.
        """
        self.say(f"training {self._request.description}")
        self.done = self._done_before = epochs
        self._began = time.monotonic()
        if epochs:
            self.say(f"continuing after epoch {epochs} of {self._total}")
        if self._bar is not None:
            self._bar.update(epochs)

    def epoch_done(self, epoch: int, measures: dict[str, float]) -> None:
        """Show a finished epoch's measures.

        Args:
            epoch: number of finished epochs.
            measures: the epoch's measures.
        """
        self.done = epoch
        left = time_left(self._began, epoch - self._done_before, self._total - epoch)
        accuracy = format_number(measures["val/accuracy"], NETWORK_PLACES)
        state = (
            f"loss {measures['train/loss']:.4f}, val accuracy {accuracy}, rate "
            f"{measures['learning_rate']:.2g}, {measures['cost/seconds']:.1f} s" + (f", {left}" if left else "")
        )
        if self._bar is not None:
            self._bar.update(epoch, state)
        else:
            self.say(f"[{epoch}/{self._total}] {state}")
