"""Processes that make a store, at once or killed: `python -m tests.trainables.storage.store_creators URI [FOLDER]`.

MLflow is imported once, by the process that forks all others, because the import takes longer than making a store.
"""

import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from trainables.storage import mlflow_store  # before mlflow

# isort: split
import sqlalchemy
from sqlalchemy.engine import Engine

TOGETHER = 4


class Creators(NamedTuple):
    """Output of this program.

    Args:
        together: wait statuses of several processes that made one store at once.
        killed: one entry for each killed process, which had reached one table more than the one before: the folder, the
            names of the files in it, and the names after the next process was killed at the first table.
    """

    together: list[int]
    killed: list[tuple[Path, list[str], list[str]]]


def creators(uri: str, folder: Path | None = None) -> Creators:
    """Run this program and return the output.

    Args:
        uri: store that several processes make at once.
        folder: folder for the folders of killed processes. If None, no process is killed.
    """
    command = [sys.executable, "-m", "tests.trainables.storage.store_creators", uri, *([str(folder)] if folder else [])]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout)
    return Creators(said["together"], [(Path(place), *names) for place, *names in said["killed"]])


def main(uri: str, folder: str | None = None) -> None:
    with tempfile.TemporaryDirectory() as warm:
        mlflow_store.open_client(f"sqlite:///{warm}/mlflow.db")
    print(json.dumps({"together": together(uri), "killed": killed(Path(folder)) if folder is not None else []}))


def together(uri: str) -> list[int]:
    """Have several processes make one store at once, and return their wait statuses."""
    pids = [forked(lambda: mlflow_store.open_client(uri)) for _ in range(TOGETHER)]
    return [os.waitpid(pid, 0)[1] for pid in pids]


def killed(folder: Path) -> list[tuple[str, list[str], list[str]]]:
    """Kill a process at each table that it makes, and then a second process at the first table; see `Creators`.

    Making all tables before each kill would take minutes. Instead, a process that reaches a table forks. The fork dies
    there. The process then copies the folder and continues with the next table.
    """
    first = folder / "first"
    first.mkdir(parents=True)
    ended = os.waitpid(forked(lambda: dying_at_each_table(first, folder)), 0)[1]
    assert ended == 0, "one of those that go on failed"
    left = []
    for number in range(len(list(folder.iterdir())) - 1):
        place = folder / str(number)
        names = names_in(place)
        ended = os.waitpid(forked(lambda place=place: dying_at_its_first_table(place)), 0)[1]
        assert os.WTERMSIG(ended) == signal.SIGKILL
        left.append((str(place), names, names_in(place)))
    return left


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def dying_at_each_table(place: Path, folder: Path) -> None:
    """Make a store. At each table, fork a process that is killed, and copy the folder it leaves."""
    made = 0

    def fork_and_die() -> None:
        nonlocal made
        assert os.WTERMSIG(os.waitpid(forked(die), 0)[1]) == signal.SIGKILL
        shutil.copytree(place, folder / str(made))
        made += 1

    at_each_table(fork_and_die)
    mlflow_store.open_client(f"sqlite:///{place}/mlflow.db")


def dying_at_its_first_table(place: Path) -> None:
    at_each_table(die)
    mlflow_store.open_client(f"sqlite:///{place}/mlflow.db")


def die() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def at_each_table(action: Callable[[], None]) -> None:
    """Call `action` before this process makes a table. Tables that replace others during migrations do not count."""

    def look_at(connection: object, cursor: object, statement: str, *others: object) -> None:
        if statement.lstrip().startswith("CREATE TABLE") and "_alembic_tmp_" not in statement:
            action()

    sqlalchemy.event.listen(Engine, "before_cursor_execute", look_at)


def forked(action: Callable[[], object]) -> int:
    """Run an action in a forked process and return the process id."""
    pid = os.fork()
    if pid == 0:
        try:
            action()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


if __name__ == "__main__":
    main(*sys.argv[1:])
