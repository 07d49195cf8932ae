"""The schema of an MLflow store: made whole or not at all, and left as it is where a store holds anything.

MLflow makes its schema by some hundred statements, which SQLite commits one by one. Killed in between, they leave a
database that no MLflow opens again. A new file is therefore made under another name and renamed when it is complete.
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
# Migrations fill these; all other rows are a user's, or made when a complete store is opened.
_FILLED_BY_MIGRATIONS: Final = frozenset({_VERSIONS, "workspaces"})
_BEGUN_TABLE: Final = "_alembic_tmp_"
_TRIES: Final = 6
_SECONDS_OF_QUIET: Final = 3.0
_SECONDS_TO_BE_MADE: Final = 20.0  # by a program that does not wait for ours

_State = Literal["empty", "whole", "half-made", "older", "newer", "foreign", "damaged"]


class SchemaError(ValueError):
    """A database that MLflow cannot use as it is."""


class _Content(NamedTuple):
    """What a database holds.

    Args:
        tables: their names.
        version: of the schema, or None.
        rows: whether a table has any that no migration made.
    """

    tables: frozenset[str]
    version: str | None
    rows: bool


def prepare_file(path: Path, upgrade: str) -> None:
    """Make a file of SQLite a complete MLflow store, unless it is one; only for who holds its lock.

    A store whose creation was killed is moved aside if it holds nothing. Leftovers of killed creations are removed.

    Args:
        path: the file; its folder is there.
        upgrade: the command that upgrades the store, for the error message.

    Raises:
        SchemaError: the file is something else, holds something and is not complete, or is in use.
        sqlalchemy.exc.DatabaseError: SQLite cannot read or write it.
    """
    path = path.resolve()  # a link to a file elsewhere stays one
    _remove_leftovers(path)
    for _ in range(_TRIES):
        if not path.exists():
            _create(path)
            continue
        state = _state_of_file(path)
        if state == "whole":
            return
        if state not in ("empty", "half-made"):
            raise SchemaError(f"{path} {_why(state)}. {_advice(state, upgrade)}")
        if not _waited_for_quiet(path):
            _clear_away(path)
    raise SchemaError(f"{path} is changed by another program while MLflow's tables are made: end that program")


def check_database(connection: sqlalchemy.Connection, upgrade: str) -> None:
    """Check that MLflow can use a database on a server, or make its tables there.

    Args:
        connection: to the database.
        upgrade: as above.

    Raises:
        SchemaError: its schema is another version's, or it belongs to something else.
    """
    state = _state(connection)
    # There a schema is made in two transactions: what a killed one leaves, MLflow goes on with.
    begun = state == "half-made" and _content(connection).version is None
    if state not in ("empty", "whole") and not begun:
        raise SchemaError(f"the database {_why(state)}. {_advice(state, upgrade)}")


def _why(state: _State) -> str:
    version = mlflow.__version__
    reasons = {
        "half-made": "has a part of MLflow's tables",
        "older": f"was made by an older MLflow than {version}, which is installed here",
        "newer": f"was made by a newer MLflow than {version}, which is installed here",
        "foreign": "is the database of another program",
        "damaged": "lacks some of MLflow's tables",
    }
    return reasons[state]


def _advice(state: _State, upgrade: str) -> str:
    if state in ("older", "half-made"):
        return f"Make a copy of it, then upgrade it:\n  {upgrade}\nor name another store with --tracking-uri"
    if state == "newer":
        return "Install that version of MLflow here, or name another store with --tracking-uri"
    return "Restore it from a copy, or name another store with --tracking-uri"


def _state_of_file(path: Path) -> _State:
    if path.is_dir():
        raise SchemaError(f"{path} is a folder: name a file, such as sqlite:///{path}/mlflow.db, with --tracking-uri")
    if not path.is_file():  # it would be replaced by a file
        raise SchemaError(f"{path} is a device or a pipe: name a file with --tracking-uri")
    # The file is opened by SQLite alone: closing it otherwise would release the locks of this process's connections.
    try:
        with _engine(path) as engine, engine.connect() as connection:
            return _state(connection)
    except sqlalchemy.exc.DatabaseError as error:
        if "not a database" not in str(error):
            raise
        raise SchemaError(
            f"{path} is a file, but is not a database of SQLite: name another file with --tracking-uri, "
            "or restore this one from a copy"
        ) from None


def _state(connection: sqlalchemy.Connection) -> _State:
    tables = frozenset(sqlalchemy.inspect(connection).get_table_names())
    if not tables:
        return "empty"
    if tables >= Base.metadata.tables.keys():
        return "whole"  # of which version, MLflow checks itself
    content = _content(connection)
    initial = InitialBase.metadata.tables.keys()
    is_ours = bool(tables & initial) and (content.version is not None or _without_begun(tables) <= initial)
    if content.version is not None and content.version not in _revisions():
        return "newer" if tables >= {"experiments", "runs"} else "foreign"
    if not is_ours:
        return "foreign"
    if not content.rows:
        return "half-made"
    return "damaged" if content.version in (None, _newest()) else "older"


def _without_begun(tables: frozenset[str]) -> set[str]:
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
    """The versions of the schema that the installed MLflow knows."""
    return frozenset(script.revision for script in _scripts().walk_revisions())


@cache
def _newest() -> str:
    return str(_scripts().get_current_head())


def _scripts() -> ScriptDirectory:
    folder = Path(utils.__file__).parent.parent / "db_migrations"
    return ScriptDirectory(str(folder))


def _create(path: Path) -> None:
    """Make a complete store; nothing of it is seen under its name before."""
    partial = path.with_name(f".{path.name}.{secrets.token_hex(8)}.partial")
    try:
        with _engine(partial) as engine:
            # The file is read by nobody until it is complete, and on disk.
            sqlalchemy.event.listen(engine, "connect", lambda raw, _: raw.execute("PRAGMA synchronous=OFF"))
            utils._initialize_tables(engine)
        sync(partial)
        _publish(partial, path)
        sync(path.parent)
    finally:
        _remove(partial)


def _publish(partial: Path, path: Path) -> None:
    """Give a file its name, unless another program has made one of that name meanwhile."""
    try:
        os.link(partial, path)
    except FileExistsError:
        return
    except OSError:  # a file system without hard links
        if not path.exists():
            partial.rename(path)


def _clear_away(path: Path) -> None:
    """Remove a database without tables, or move aside one without rows, if no program has it open."""
    in_use = SchemaError(
        f"{path} has not all of MLflow's tables, and another program has it open: end that program (an `mlflow ui`?), "
        "or name another store with --tracking-uri"
    )
    try:
        with closing(sqlite3.connect(path, timeout=SECONDS_FOR_A_LOCK, isolation_level=None)) as connection:
            # What stands in the files beside it goes into it, and those files go.
            (mode,) = connection.execute("PRAGMA journal_mode=DELETE").fetchone()
            if mode != "delete":
                raise in_use
            connection.execute("BEGIN EXCLUSIVE")
            found = [name for (name,) in connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'")]
            if any(_holds(connection, name) for name in found if name not in _FILLED_BY_MIGRATIONS):
                return  # written to meanwhile: the caller looks again
            if found:
                path.rename(_free_name(path))
            else:
                path.unlink()
    except sqlite3.OperationalError as error:
        if "locked" in str(error):
            raise in_use from None
        raise


def _holds(connection: sqlite3.Connection, name: str) -> bool:
    quoted = name.replace('"', '""')
    return connection.execute(f'SELECT 1 FROM "{quoted}" LIMIT 1').fetchone() is not None  # noqa: S608


def _waited_for_quiet(path: Path) -> bool:
    """Wait until a file no longer changes, as a program without our lock, such as `mlflow ui`, may be making the store.

    Returns:
        Whether there was need to, so that the file has to be looked at again.
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
    """SQLAlchemy's engine for a file, of which no connection stays open."""
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
