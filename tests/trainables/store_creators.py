"""Processes that make a store, at once or killed at it: `python -m tests.trainables.store_creators MODE URI FOLDER`.

MLflow is imported once, by the process that forks all others, as that takes longer than making a store.
"""

import json
import os
import signal
import subprocess
import sys
import traceback
from collections.abc import Callable
from pathlib import Path

from trainables import mlflow_store  # before mlflow

# isort: split
import sqlalchemy
from sqlalchemy.engine import Engine

TOGETHER = 4


def creators(mode: str, folder: Path, uri: str | None = None) -> list:
    """What this program prints: see `killed` and `together`."""
    uri = uri or f"sqlite:///{folder}/mlflow.db"
    command = [sys.executable, "-m", "tests.trainables.store_creators", mode, uri, str(folder)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def main(mode: str, uri: str, folder: Path) -> None:
    mlflow_store.open_client(f"sqlite:///{folder}/warm/mlflow.db")
    if mode == "killed":
        print(json.dumps(killed(uri, folder)))
    else:
        print(json.dumps(together(uri)))


def together(uri: str) -> list[int]:
    """How several creators of one store ended."""
    pids = [forked(lambda: mlflow_store.open_client(uri)) for _ in range(TOGETHER)]
    return [os.waitpid(pid, 0)[1] for pid in pids]


def killed(uri: str, folder: Path) -> list[list[str]]:
    """Kill a creator at its first table, the next at its second, until one is through; what each left."""
    left = []
    while True:
        pid = forked(lambda: killed_at(len(left), uri))
        status = os.waitpid(pid, 0)[1]
        if os.WIFEXITED(status):
            assert status == 0, left
            return left
        assert os.WTERMSIG(status) == signal.SIGKILL
        left.append(sorted(path.name for path in folder.iterdir() if path.is_file()))


def killed_at(table: int, uri: str) -> None:
    made = 0

    def count(connection: object, cursor: object, statement: str, *others: object) -> None:
        nonlocal made
        # A table that takes another's place is no further one.
        if statement.lstrip().startswith("CREATE TABLE") and "_alembic_tmp_" not in statement:
            if made == table:
                os.kill(os.getpid(), signal.SIGKILL)
            made += 1

    sqlalchemy.event.listen(Engine, "before_cursor_execute", count)
    mlflow_store.open_client(uri)


def forked(action: Callable[[], object]) -> int:
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
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
