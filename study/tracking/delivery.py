"""Trials on their way to a tracking server that may be slow, away for a while, or gone.

What is handed over is a trial as it is by then, so that nothing piles up while a server is away but the names of the
trials that have changed. A study never waits for a server before its end.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable
from typing import Final

from study.ledger.ledger import TrialEntry
from trainables.storage.uris import redact

PATIENCE: Final = 60.0
_SECONDS_TO_GATHER: Final = 3.0
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 10.0
_log = logging.getLogger(__name__)


class RefusedError(Exception):
    """The server is there and will not take this, however often it is sent."""


class Delivery:
    """A thread that hands trials over, each until it is taken.

    Args:
        hand_over: takes a trial as it is, and may get it again. Raises `RefusedError` for what will never be taken;
            after any other error the same trial is tried again, those that come later wait behind it.
        tell: hears that the server is away and that it is back, a line each.
        patience: seconds, counted once the study has ended, after which a server that takes nothing is given up.
        gather: seconds in which several changes of a trial become one.

    Attributes:
        patience: may be changed until it is closed.
    """

    def __init__(
        self,
        hand_over: Callable[[TrialEntry], None],
        *,
        tell: Callable[[str], None],
        patience: float = PATIENCE,
        gather: float = _SECONDS_TO_GATHER,
    ) -> None:
        self._hand_over = hand_over
        self._tell = tell
        self.patience = patience
        self._seconds_to_gather = gather
        self._queue: queue.SimpleQueue[TrialEntry | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._deliver_all, name="mlflow-delivery", daemon=True)
        self._thread.start()

    def put(self, entry: TrialEntry) -> None:
        """Take a trial that has started, gone on or ended; returns at once."""
        self._queue.put(entry)

    def close(self) -> Exception | None:
        """Wait for what is on its way, as long as there is hope.

        Returns:
            Why not everything was taken, if it was not.
        """
        self._queue.put(None)
        self._closed.set()
        self._thread.join()
        return self._failure

    def _deliver_all(self) -> None:
        closing = False
        while not closing:
            entries, closing = gather(self._queue, self._seconds_to_gather)
            for entry in entries:
                try:
                    self.persist(lambda entry=entry: self._hand_over(entry))  # type: ignore[misc]
                except RefusedError as error:
                    _log.warning("MLflow does not take trial %s: %s", entry.trial_id, error)
                    self._failure = error
                except Exception as error:  # the thread must not die silently: the study's end reports it
                    self._failure = error
                    return

    def persist(self, send: Callable[[], None]) -> None:
        """Send something until it is taken.

        Raises:
            RefusedError: it never will be.
            Exception: whatever sending raised last, when patience is at its end.
        """
        began, pause, away = time.monotonic(), _FIRST_PAUSE, False
        while True:
            try:
                send()
                break
            except RefusedError:
                raise
            except Exception as error:
                if not away:
                    away = True
                    self._tell(f"MLflow takes nothing at the moment, the study goes on without it: {first_line(error)}")
                began = began if self._closed.is_set() else time.monotonic()
                if time.monotonic() - began >= self.patience:
                    raise
            # A study that ends meanwhile wants to know at once whether the server is back.
            if self._closed.is_set():
                time.sleep(pause)
            else:
                self._closed.wait(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)
        if away:
            self._tell("MLflow takes trials again: what was waiting is on its way")


def gather(trials: "queue.SimpleQueue[TrialEntry | None]", seconds: float) -> tuple[list[TrialEntry], bool]:
    """What comes in, each trial once, as what it is by then needs fewer writes; waits for the first.

    Args:
        trials: those that have started, gone on or ended; None is the last.
        seconds: for which it goes on after the first.

    Returns:
        The trials, and whether the last is among them.
    """
    waiting: dict[str, TrialEntry] = {}
    entry = trials.get()
    deadline = time.monotonic() + seconds
    while entry is not None:
        waiting[entry.trial_id] = entry
        try:
            entry = trials.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return list(waiting.values()), False
    return list(waiting.values()), True


def first_line(error: Exception, *uris: str) -> str:
    """The first line of an error's message, without secrets, as far as it goes into a line.

    Args:
        error: the error.
        uris: those of which it may repeat secrets; see `redact`.
    """
    # Cut first, a URI would no longer be known by what follows its password.
    lines = redact(str(error), *uris).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
