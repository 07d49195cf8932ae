"""Worker processes of a study on one machine, forked from a template; see `trainables.process.forks`."""

import pickle
from collections.abc import Callable, Sequence
from contextlib import suppress
from multiprocessing.connection import wait
from typing import Any, Final

from study.running.stop import Stop
from study.running.task_errors import TaskFailedError, TaskLostError
from trainables.process.forks import Fork, Template

_SECONDS_BETWEEN_LOOKS: Final = 0.25
_TRIES: Final = 3


class WorkerDiedError(RuntimeError):
    """A worker process ended before the task."""


class RemoteError(Exception):
    """Error in a worker whose class this process lacks; the message is that of the error."""


class Workers:
    """All workers of a study.

    Args:
        template: the template process.
        stop: the study's stopping condition.
    """

    def __init__(self, template: Template, stop: Stop) -> None:
        self._template = template
        self._stop = stop
        self._idle: list[Fork] = []
        self._busy: list[Fork] = []

    def take(self) -> Fork:
        """Return an idle worker, or a new one."""
        worker = self._idle.pop() if self._idle else self._template.fork()
        self._busy.append(worker)
        return worker

    def give_back(self, worker: Fork) -> None:
        """Keep a worker that has finished a task for the next one."""
        self._busy.remove(worker)
        self._idle.append(worker)

    def end(self, worker: Fork) -> None:
        """End a worker."""
        worker.kill()
        self._busy.remove(worker)

    def close(self) -> None:
        """End all workers, and the template."""
        for worker in (*self._busy, *self._idle):
            worker.kill()
        self._busy.clear()
        self._idle.clear()
        self._template.close()

    def call(self, name: str, *arguments: Any, heard: Callable[[Any], None] = lambda _: None, **options: Any) -> Any:
        """Run a task in a worker. A task whose worker dies runs again.

        Args:
            name: name of a function of `trainables.tune.tasks`.
            *arguments: arguments of the function.
            heard: receives the content of each progress message.
            **options: keyword arguments of the function.

        Returns:
            The task's result, or None if the study stops.

        Raises:
            TaskFailedError: the task raised an error.
            TaskLostError: the worker died in each try.
        """
        for tries_left in reversed(range(_TRIES)):
            try:
                return self.finish(self.begin(name, *arguments, **options), heard)
            except WorkerDiedError as error:
                if not tries_left:
                    raise TaskLostError(error) from None
        raise AssertionError

    def begin(self, name: str, *arguments: Any, **options: Any) -> Fork:
        """Start a task, as for `call`, and return the worker."""
        worker = self.take()
        send(worker, ("task", (name, arguments, options)))
        return worker

    def finish(self, worker: Fork, heard: Callable[[Any], None]) -> Any:
        """Return the result of a task that `begin` has started, or None if the study stops.

        Raises:
            TaskFailedError: the task raised an error.
            WorkerDiedError: the worker died.
        """
        while True:
            if self._stop.stop_all():
                self.end(worker)  # files are written atomically
                return None
            if not worker.connection.poll(_SECONDS_BETWEEN_LOOKS):
                continue
            message = receive(worker)
            if message is None:
                self.end(worker)
                raise WorkerDiedError("the worker process died")
            kind, content = message
            if kind != "progress":
                return self._answer(worker, kind, content)
            heard(content)

    def result(self, worker: Fork) -> Any:
        """Return the result of a task without progress messages, once the worker has sent it.

        Raises:
            TaskFailedError: the task raised an error.
            TaskLostError: the worker died.
        """
        message = receive(worker)
        if message is None:
            self.end(worker)
            raise TaskLostError(WorkerDiedError("the worker process died"))
        return self._answer(worker, *message)

    def _answer(self, worker: Fork, kind: str, content: Any) -> Any:
        self.give_back(worker)
        if kind == "failed":
            raise TaskFailedError(error_of(content))
        return content


def send(worker: Fork, message: Any) -> None:
    """Send a message. If the worker has died, the next `receive` tells."""
    with suppress(OSError):
        worker.connection.send(message)


def receive(worker: Fork) -> tuple[str, Any] | None:
    """Receive a message; None if the worker has died, even in the middle of a message."""
    try:
        message: tuple[str, Any] = worker.connection.recv()
    except (EOFError, OSError, pickle.UnpicklingError):
        return None
    return message


def error_of(content: tuple[bytes, str, str]) -> BaseException:
    """Return a worker's error."""
    pickled, message, _ = content
    try:
        error = pickle.loads(pickled)  # noqa: S301 - from our own worker
    except Exception:
        return RemoteError(message)
    return error if isinstance(error, BaseException) else RemoteError(message)


def ready(workers: Sequence[Fork], seconds: float) -> list[Fork]:
    """Return the workers with a message, or that have died, after waiting for at most `seconds`."""
    by_connection = {worker.connection: worker for worker in workers}
    return [by_connection[each] for each in wait(list(by_connection), seconds)]  # type: ignore[index]
