"""Create or check the database schema of an MLflow store.

MLflow creates the schema with about a hundred statements, and SQLite commits each statement separately. If the process
is killed in between, MLflow cannot open the database. A new SQLite file is therefore created under another name, and
renamed when the schema is complete. A database with data is never changed.
"""

import os
import secrets
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from functools import cache
from pathlib import Path
from typing import Final, Literal, NamedTuple

import mlflow
import sqlalchemy
from alembic.script import ScriptDirectory
from mlflow.store.db import utils
from mlflow.store.db.base_sql_model import Base
from mlflow.store.tracking.dbmodels.initial_models import Base as InitialBase
from sqlalchemy.pool import NullPool

from trainables.storage.files import sync

SECONDS_FOR_A_LOCK: Final = 10.0
_VERSIONS: Final = "alembic_version"
# Migrations insert rows into these tables. Rows in other tables come from a user, or from opening a complete store.
_FILLED_BY_MIGRATIONS: Final = frozenset({_VERSIONS, "workspaces"})
_BEGUN_TABLE: Final = "_alembic_tmp_"
_TRIES: Final = 6
_SECONDS_OF_QUIET: Final = 3.0
_SECONDS_TO_BE_MADE: Final = 20.0  # for a program creating the store without waiting for our lock

_State = Literal["empty", "whole", "half-made", "older", "newer", "foreign", "damaged"]


class SchemaError(ValueError):
    """MLflow cannot use the database schema."""


class _Content(NamedTuple):
    """Database content.

    Args:
        tables: table names.
        version: schema version, or None.
        rows: whether any table has rows besides those inserted by migrations.
    """

    tables: frozenset[str]
    version: str | None
    rows: bool


def prepare_file(path: Path, upgrade: str) -> None:
    """Turn an SQLite file into a complete MLflow store, unless the file already is one.

    The caller must hold the store's lock. If an earlier creation was interrupted, the incomplete store is moved aside,
    unless it has rows. Leftover files from interrupted creations are removed.

    Args:
        path: SQLite file. The folder must exist.
        upgrade: upgrade command for the store, for the error message.

    Raises:
        SchemaError: the file is no store of this MLflow version, is incomplete but has rows, or is in use.
        sqlalchemy.exc.DatabaseError: SQLite cannot read or write the file.
    """
    path = path.resolve()  # keep a symbolic link, and replace the target
    _remove_leftovers(path)
    for _ in range(_TRIES):
        if not path.exists():
            _create(path)
            continue
        state = _state_of_file(path)
        if state == "whole":
            return
        if state not in ("empty", "half-made"):
            raise SchemaError(f"{path} {_problem(state)}. {_advice(state, upgrade)}")
        if not _wait_until_unchanged(path):
            _move_aside(path)
    raise SchemaError(f"{path} is being changed by another program while MLflow's tables are created: end that program")


def check_database(connection: sqlalchemy.Connection, upgrade: str) -> None:
    """Check that MLflow can use a database on a server, or can create the tables there.

    Args:
        connection: connection to the database.
        upgrade: upgrade command for the store, for the error message.

    Raises:
        SchemaError: the schema is damaged, incomplete, or belongs to another MLflow version or another program.
    """
    state = _state(connection)
    # On a server, MLflow creates the schema in two transactions, and continues a creation that was killed between them.
    begun = state == "half-made" and _content(connection).version is None
    if state not in ("empty", "whole") and not begun:
        raise SchemaError(f"the database {_problem(state)}. {_advice(state, upgrade)}")


def _problem(state: _State) -> str:
    version = mlflow.__version__
    reasons = {
        "half-made": "has only some of MLflow's tables",
        "older": f"was created by an older MLflow than the installed {version}",
        "newer": f"was created by a newer MLflow than the installed {version}",
        "foreign": "is the database of another program",
        "damaged": "lacks some of MLflow's tables",
    }
    return reasons[state]


def _advice(state: _State, upgrade: str) -> str:
    if state in ("older", "half-made"):
        return f"Make a copy of it, then upgrade it:\n  {upgrade}\nor use another store with --tracking-uri"
    if state == "newer":
        return "Install that newer version of MLflow, or use another store with --tracking-uri"
    return "Restore it from a backup, or use another store with --tracking-uri"


def _state_of_file(path: Path) -> _State:
    if path.is_dir():
        raise SchemaError(f"{path} is a folder: give a file, such as sqlite:///{path}/mlflow.db, with --tracking-uri")
    if not path.is_file():  # a device would be replaced by a file
        raise SchemaError(f"{path} is a device or a pipe: give a file with --tracking-uri")
    # Only SQLite may open the file. Closing it elsewhere would release the locks held by this process's connections.
    try:
        with _engine(path) as engine, engine.connect() as connection:
            return _state(connection)
    except sqlalchemy.exc.DatabaseError as error:
        if "not a database" not in str(error):
            raise
        raise SchemaError(
            f"{path} is a file, but not an SQLite database: give another file with --tracking-uri, or restore "
            "this one from a backup"
        ) from None


def _state(connection: sqlalchemy.Connection) -> _State:
    tables = frozenset(sqlalchemy.inspect(connection).get_table_names())
    if not tables:
        return "empty"
    if tables >= Base.metadata.tables.keys():
        return "whole"  # MLflow checks the version itself
    content = _content(connection)
    initial = InitialBase.metadata.tables.keys()
    is_ours = bool(tables & initial) and (content.version is not None or _without_temporary_tables(tables) <= initial)
    if content.version is not None and content.version not in _revisions():
        return "newer" if tables >= {"experiments", "runs"} else "foreign"
    if not is_ours:
        return "foreign"
    if not content.rows:
        return "half-made"
    return "damaged" if content.version in (None, _newest()) else "older"


def _without_temporary_tables(tables: frozenset[str]) -> set[str]:
    return {name for name in tables if name != _VERSIONS and not name.startswith(_BEGUN_TABLE)}


def _content(connection: sqlalchemy.Connection) -> _Content:
    tables = frozenset(sqlalchemy.inspect(connection).get_table_names())
    version = None
    if _VERSIONS in tables:
        found = connection.execute(sqlalchemy.text(f"SELECT version_num FROM {_VERSIONS}")).first()  # noqa: S608
        version = str(found[0]) if found is not None else None
    filled = [sqlalchemy.exists().select_from(sqlalchemy.table(name)) for name in tables - _FILLED_BY_MIGRATIONS]
    rows = bool(filled) and bool(connection.execute(sqlalchemy.select(sqlalchemy.or_(*filled))).scalar())
    return _Content(tables, version, rows)


@cache
def _revisions() -> frozenset[str]:
    """Return the schema versions known to the installed MLflow."""
    return frozenset(script.revision for script in _scripts().walk_revisions())


@cache
def _newest() -> str:
    return str(_scripts().get_current_head())


def _scripts() -> ScriptDirectory:
    folder = Path(utils.__file__).parent.parent / "db_migrations"
    return ScriptDirectory(str(folder))


def _create(path: Path) -> None:
    """Create a complete store. Nothing is visible at `path` before the schema is complete."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        with _engine(partial) as engine:
            # No process reads the file before it is complete and on disk.
            sqlalchemy.event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
            utils._initialize_tables(engine)
        sync(partial)
        _publish(partial, path)
        sync(path.parent)
    finally:
        _remove(partial)


def _publish(partial: Path, path: Path) -> None:
    """Move a file to `path`, unless another program has created `path` in the meantime."""
    try:
        os.link(partial, path)
    except FileExistsError:
        return
    except OSError:  # file system without hard links
        if not path.exists():
            partial.rename(path)


def _move_aside(path: Path) -> None:
    """Remove a database without tables, or move aside one without rows.

    Raises:
        SchemaError: another program has the database open.
    """
    in_use = SchemaError(
        f"{path} lacks some of MLflow's tables, and another program has it open: end that program (an "
        "`mlflow ui`?), or use another store with --tracking-uri"
    )
    try:
        with closing(sqlite3.connect(path, timeout=SECONDS_FOR_A_LOCK, isolation_level=None)) as connection:
            # This merges the -wal file into the database, and removes the -wal and -shm files.
            (mode,) = connection.execute("PRAGMA journal_mode=DELETE").fetchone()
            if mode != "delete":
                raise in_use
            connection.execute("BEGIN EXCLUSIVE")
            found = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            if any(_has_rows(connection, name) for name in found if name not in _FILLED_BY_MIGRATIONS):
                return  # rows were written in the meantime: the caller checks again
            if found:
                path.rename(_free_name(path))
            else:
                path.unlink()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise in_use from None
        raise


def _has_rows(connection: sqlite3.Connection, name: str) -> bool:
    quoted = name.replace('"', '""')
    return connection.execute(f'SELECT 1 FROM "{quoted}" LIMIT 1').fetchone() is not None  # noqa: S608


def _wait_until_unchanged(path: Path) -> bool:
    """Wait until a file no longer changes. A program without our lock, such as `mlflow ui`, may be creating the store.

    Returns:
        Whether this function waited. The file must then be checked again.
    """
    waited, deadline = False, time.monotonic() + _SECONDS_TO_BE_MADE
    while abs(time.time() - _last_change(path)) < _SECONDS_OF_QUIET and time.monotonic() < deadline:
        time.sleep(0.2)
        waited = True
    return waited


def _last_change(path: Path) -> float:
    files = (path.with_name(path.name + end) for end in ("", "-wal", "-journal"))
    return max((file.stat().st_mtime for file in files if file.exists()), default=0.0)


def _free_name(path: Path) -> Path:
    stamp = time.strftime("%Y%m%d-%H%M%S")
    names = (path.with_name(f"{path.name}.half-made-{stamp}{end}") for end in ("", *(f"-{n}" for n in range(2, 1000))))
    return next(name for name in names if not name.exists())


@contextmanager
def _engine(path: Path) -> Iterator[sqlalchemy.Engine]:
    """Open an SQLAlchemy engine for a file. No connections stay open."""
    url = sqlalchemy.URL.create("sqlite", database=str(path))
    engine = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args={"timeout": SECONDS_FOR_A_LOCK})
    try:
        yield engine
    finally:
        engine.dispose()


def _remove_leftovers(path: Path) -> None:
    for partial in path.parent.iterdir():
        if partial.name.startswith(f".{path.name}.") and ".partial" in partial.name:
            partial.unlink(missing_ok=True)


def _remove(partial: Path) -> None:
    for end in ("", "-journal", "-wal", "-shm"):
        partial.with_name(partial.name + end).unlink(missing_ok=True)
