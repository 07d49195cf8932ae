"""Worker of a study on one machine, without Ray: runs the study's tasks and trials as requested over a connection.

The worker answers each request with messages `(kind, content)`, the last of which is `done` or `failed` (the pickled
error, the message, and a description):

| request | messages before the last |
| --- | --- |
| `task`: name, arguments | `progress` of a teacher: epoch, accuracy |
| `trials`: settings of each trial | `report`: trial identifier, report; `saved`: path of a checkpoint; `wait` |

After `wait`, the worker continues when the study answers with the identifiers of trials to stop. The study has then
recorded the reports sent before, so no checkpoint is ahead of the journal.
"""

import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, Final, Protocol

from trainables.process.threads import use_one_thread
from trainables.tune import tasks
from trainables.tune.cohort import Cohort
from trainables.tune.session import TrialSession, begin_run, describe_error, note_unwritten_checkpoint


class Channel(Protocol):
    """Connection to the study; see `multiprocessing.connection.Connection`."""

    def send(self, message: Any, /) -> None:
        """Send a message."""
        ...

    def recv(self) -> Any:
        """Receive a message."""
        ...


def serve_requests(channel: Channel) -> None:
    """Answer requests until the study closes the connection.

    Raises:
        EOFError: the study has closed the connection.
    """
    use_one_thread()
    while True:
        name, content = channel.recv()
        try:
            answer = _ANSWERS[name](channel, content)
        except (EOFError, ConnectionError):
            raise
        except Exception as error:
            channel.send(("failed", (_pickled(error), str(error), describe_error(error))))
        else:
            channel.send(("done", answer))


def _pickled(error: Exception) -> bytes:
    """Return an error as bytes; empty if it cannot be pickled. The study may lack the class of a user's error."""
    try:
        return pickle.dumps(error)
    except Exception:
        return b""


def _run_task(channel: Channel, content: tuple[str, tuple[Any, ...], dict[str, Any]]) -> Any:
    name, arguments, options = content
    if name == "prepare_teacher":
        options = {
            **options,
            "progress": lambda epoch, epochs, accuracy: channel.send(("progress", (epoch, accuracy))),  # noqa: ARG005
        }
    return _TASKS[name](*arguments, **options)


def _run_trials(channel: Channel, content: tuple[list[dict[str, Any]], bool]) -> None:
    settings, waits = content
    if len(settings) == 1 and not settings[0].get("pack"):
        _run_alone(channel, settings[0], waits=waits)
    else:
        _run_cohort(channel, settings, waits=waits)


def _run_alone(channel: Channel, settings: dict[str, Any], *, waits: bool) -> None:
    trial_id, saver = settings["trial_id"], _Saver(channel)
    session = TrialSession(settings, begin=begin_run)
    while True:
        report = session.step()
        channel.send(("report", (trial_id, report)))
        if report["done"]:
            return
        if (waits or report["should_checkpoint"]) and trial_id in _answer(channel):
            return
        if report["should_checkpoint"]:
            saver.save(trial_id, settings["folder"], session.save)


def _run_cohort(channel: Channel, settings: list[dict[str, Any]], *, waits: bool) -> None:
    folders, saver = {each["trial_id"]: each["folder"] for each in settings}, _Saver(channel)
    cohort = Cohort(settings, begin=begin_run)
    for reports in cohort.run():
        for trial_id, report in reports.items():
            channel.send(("report", (trial_id, report)))
        checkpoint = any(report["should_checkpoint"] for report in reports.values())
        if waits or checkpoint:
            cohort.stop(_answer(channel))
        if checkpoint:  # all together, so that they resume as one pack
            for trial_id in cohort.running:
                saver.save(trial_id, folders[trial_id], partial(cohort.save, trial_id))


def _answer(channel: Channel) -> set[str]:
    channel.send(("wait", None))
    stopped: set[str] = channel.recv()
    return stopped


class _Saver:
    """Writes the checkpoints of trials, numbered as Tune would number them."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._saved: dict[str, int] = {}

    def save(self, trial_id: str, folder: str, save: Callable[[Path], None]) -> None:
        """Write a checkpoint; on a write error, add a note and continue, because only time on a resume is lost."""
        number = self._saved.get(trial_id, 0)
        path = Path(folder) / f"checkpoint_{number:06}"
        try:
            save(path)
        except OSError as error:
            note_unwritten_checkpoint(trial_id, error)
            return
        self._saved[trial_id] = number + 1
        self._channel.send(("saved", str(path)))


_TASKS: Final[dict[str, Callable[..., Any]]] = {
    "prepare_teacher": tasks.prepare_teacher,
    "dataset_digest": tasks.dataset_digest,
    "fill_teacher_outputs": tasks.fill_teacher_outputs,
    "pack_size": tasks.pack_size,
}
_ANSWERS: Final[dict[str, Callable[[Channel, Any], Any]]] = {"task": _run_task, "trials": _run_trials}
