"""Correct the artifact URIs of an SQLite MLflow store, moved or copied with the folder.

MLflow stores an absolute artifact URI with every experiment, run and model, and has no command to change the URIs.
Without a correction, a moved store shows no artifacts, and the next logged artifact recreates the old folder. Output
folders keep artifacts in `mlartifacts` next to the store, so the new location is known.
"""

import re
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Final
from urllib.parse import unquote, urlsplit
from urllib.request import url2pathname

STORE: Final = "mlflow.db"
ARTIFACTS: Final = "mlartifacts"
# MLflow 3's columns with artifact URIs. An experiment's URI is the folder itself; all others lie inside it.
_COLUMNS: Final = (
    ("experiments", "artifact_location"),
    ("runs", "artifact_uri"),
    ("logged_models", "artifact_location"),
    ("model_versions", "storage_location"),
)
_PLACE: Final = re.compile(rf"(file://.*/{ARTIFACTS})(/.*)?")


def find_artifacts_again(store: Path) -> int:
    """Update the artifact URIs that point to a store's earlier folder.

    A URI with an existing target is kept, unless the artifact also exists in the new folder. In that case the new
    folder is a copy, and the URI must point there.

    Args:
        store: SQLite file with a complete schema.

    Returns:
        Number of distinct URIs changed.

    Raises:
        sqlite3.Error: the store cannot be read or written.
    """
    if store.name != STORE:
        return 0
    folder = store.absolute().parent / ARTIFACTS
    own = folder.as_uri()
    with closing(sqlite3.connect(store, timeout=30)) as connection, connection:
        there = {name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        columns = [(table, column) for table, column in _COLUMNS if table in there]
        places = {place for each in columns for place in _other_places(connection, *each, own)}
        moved = _moved(places, folder)
        for table, column in columns:
            connection.executemany(
                f"UPDATE {table} SET {column} = ? WHERE {column} = ?",  # noqa: S608 - names of our own
                [(own + inside, old + inside) for old, inside in moved],
            )
    return len(moved)


def _other_places(connection: sqlite3.Connection, table: str, column: str, own: str) -> list[tuple[str, str]]:
    """Return the artifact URIs in other folders named `mlartifacts`, split into folder URI and remaining path."""
    query = f"SELECT DISTINCT {column} FROM {table} WHERE substr({column}, 1, ?) != ?"  # noqa: S608 - names of our own
    found = (_PLACE.fullmatch(place) for (place,) in connection.execute(query, (len(own), own)) if place)
    return [(match[1], match[2] or "") for match in found if match is not None]


def _moved(places: set[tuple[str, str]], folder: Path) -> list[tuple[str, str]]:
    gone = {old for old, _ in places if not _path_of(old).parent.exists()}
    along = {(old, inside) for old, inside in places if inside and (folder / unquote(inside[1:])).exists()}
    came = gone | {old for old, _ in along}
    return [
        (old, inside)
        for old, inside in sorted(places)
        if old in gone or (old, inside) in along or (old in came and not (inside and _path_of(old + inside).exists()))
    ]


def _path_of(uri: str) -> Path:
    return Path(url2pathname(urlsplit(uri).path))
