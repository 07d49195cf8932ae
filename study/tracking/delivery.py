"""Background delivery of trials to a tracking server, with tolerance for slow or unreachable servers.

The queue holds references to trials, and each delivery sends a trial's current state. During an outage the queue
therefore grows only by the changed trials. A study waits for the server only at the end.
"""

import logging
import queue
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final

from study.ledger.entry import TrialEntry
from trainables.storage.uris import redact

PATIENCE: Final = 60.0
_SECONDS_TO_GATHER: Final = 3.0
_MOST_TOGETHER: Final = 100  # trials; a database is locked for a tenth of a second at most
_FIRST_PAUSE: Final = 1.0
_LONGEST_PAUSE: Final = 10.0
_SECONDS_TO_ABANDON: Final = 5.0  # limit for the request in progress, since the server may never respond
_log = logging.getLogger(__name__)


class RefusedError(Exception):
    """Permanent refusal by a reachable server: sending the request again cannot help."""


class Delivery:
    """Background thread for sending trials until the server accepts them.

    Args:
        send_trial: sends a trial's current state. May be called again for the same trial. Raises `RefusedError` if the
            server will never accept the trial. After any other error the same trial is sent again, and later trials
            wait.
        report: receives one line when the server becomes unreachable and one when the server is back.
        patience: seconds to wait for an unresponsive server after the end of the study.
        gather: seconds for merging several changes of a trial into one delivery.
        send_together: sends some of several trials in one request. Returns the others, to send one by one. Raises
            nothing.
        title: name of the server, for messages.

    Attributes:
        patience: may be changed until `close` is called.
    """

    def __init__(
        self,
        send_trial: Callable[[TrialEntry], None],
        *,
        report: Callable[[str], None],
        patience: float = PATIENCE,
        gather: float = _SECONDS_TO_GATHER,
        send_together: Callable[[list[TrialEntry]], list[TrialEntry]] = list,
        title: str = "MLflow",
    ) -> None:
        self._title = title
        self._send_trial = send_trial
        self._send_together = send_together
        self._report = report
        self.patience = patience
        self._seconds_to_gather = gather
        self._queue: queue.SimpleQueue[TrialEntry | None] = queue.SimpleQueue()
        self._closed = threading.Event()
        self._abandoned = threading.Event()
        self._failure: Exception | None = None
        self._thread = threading.Thread(target=self._deliver_all, name=f"{title}-delivery", daemon=True)
        self._thread.start()

    def put(self, entry: TrialEntry) -> None:
        """Queue a started, progressed or ended trial. Returns at once."""
        self._queue.put(entry)

    def close(self) -> Exception | None:
        """Wait until all queued trials are delivered or patience runs out.

        Returns:
            The error if a delivery failed, or None if the server accepted everything.
        """
        self._queue.put(None)
        self._closed.set()
        self._thread.join()
        return self._failure

    def abandon(self) -> None:
        """Stop delivering, without waiting for the queued trials. For an interrupted study in a process that continues.

        A later study run delivers the rest. This thread must stop first: two threads delivering the same trial would
        create two runs.
        """
        self._abandoned.set()
        self.patience = 0.0
        self._queue.put(None)
        self._closed.set()
        self._thread.join(_SECONDS_TO_ABANDON)

    def _deliver_all(self) -> None:
        closing = False
        while not closing:
            entries, closing = gather(self._queue, self._seconds_to_gather)
            for entry in self._left_of(entries):
                if self._abandoned.is_set():
                    return
                try:
                    self.send_until_accepted(lambda entry=entry: self._send_trial(entry))  # type: ignore[misc]
                except RefusedError as error:
                    _log.warning("%s rejected trial %s: %s", self._title, entry.trial_id, error)
                    self._failure = error
                except Exception as error:  # the thread must not die silently: `close` returns the error
                    self._failure = error
                    return

    def _left_of(self, entries: list[TrialEntry]) -> Iterator[TrialEntry]:
        """Send what can be sent together, and yield all other trials."""
        for start in range(0, len(entries), _MOST_TOGETHER):
            if self._abandoned.is_set():
                return
            yield from self._send_together(entries[start : start + _MOST_TOGETHER])

    def send_until_accepted(self, send: Callable[[], None]) -> None:
        """Call `send` until it succeeds.

        Raises:
            RefusedError: the server will never accept the request.
            Exception: the last error of `send`, once patience has run out.
        """
        began, pause, unreachable = time.monotonic(), _FIRST_PAUSE, False
        while True:
            try:
                send()
                break
            except RefusedError:
                raise
            except Exception as error:
                if not unreachable:
                    unreachable = True
                    self._report(
                        f"{self._title} accepts nothing at the moment, the study continues without it: "
                        f"{first_line(error)}"
                    )
                began = began if self._closed.is_set() else time.monotonic()
                if time.monotonic() - began >= self.patience:
                    raise
            # While the study runs, wait on the event: if the study ends meanwhile, retry at once.
            if self._closed.is_set():
                time.sleep(pause)
            else:
                self._closed.wait(pause)
            pause = min(_LONGEST_PAUSE, 2 * pause)
        if unreachable:
            self._report(f"{self._title} accepts trials again: the waiting ones are being delivered")


def gather(trials: "queue.SimpleQueue[TrialEntry | None]", seconds: float) -> tuple[list[TrialEntry], bool]:
    """Collect queued trials for `seconds`, keeping the latest state of each. Blocks until the first one arrives.

    Merging several changes of a trial into one saves writes.

    Args:
        trials: queue of started, progressed or ended trials. None marks the end of the queue.
        seconds: collection time after the first trial.

    Returns:
        The collected trials, and whether the end of the queue was reached.
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
    """Return an error message's first line, without secrets and cut to 200 characters.

    Args:
        error: the error.
        uris: URIs with secrets, to be removed from the message; see `redact`.
    """
    # Redact before cutting: a cut URI might lose the part by which a password is recognised.
    lines = redact(str(error), *uris).strip().splitlines() or [type(error).__name__]
    return lines[0][:200]
