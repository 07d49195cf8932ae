"""MLflow's tables, created once and copied into each further store of the tests.

MLflow creates the tables by running all migrations, which takes a second of processor time.
"""

import os
import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from unittest import mock

import sqlalchemy
from mlflow.store.db import utils


@contextmanager
def made_once(folder: Path) -> Iterator[None]:
    """Have MLflow create the tables once, and copy them afterwards.

    Args:
        folder: folder of the copy. Other processes may use the same folder.
    """
    make, copy = utils._initialize_tables, folder / "tables.db"

    def make_or_copy(engine: sqlalchemy.Engine) -> None:
        target = engine.url.database
        if engine.dialect.name != "sqlite" or not target or target == ":memory:":
            make(engine)
        elif copy.exists():
            _copy(copy, target)
        else:
            make(engine)
            partial = folder / f"{os.getpid()}.partial"
            _copy(target, partial)
            partial.replace(copy)

    with mock.patch.object(utils, "_initialize_tables", make_or_copy):
        yield


def _copy(source: str | Path, target: str | Path) -> None:
    with closing(sqlite3.connect(source)) as whole, closing(sqlite3.connect(target)) as empty:
        empty.execute("PRAGMA synchronous=OFF")
        whole.backup(empty)
