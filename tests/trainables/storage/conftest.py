"""Fixtures shared by the storage tests."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from trainables.storage.mlflow_store import open_client


@pytest.fixture(scope="module")
def complete(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Complete MLflow database in one file, without a write-ahead log."""
    path = tmp_path_factory.mktemp("complete") / "mlflow.db"
    open_client(f"sqlite:///{path}")
    merge_log(path)
    return path


def merge_log(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
