"""Open and check MLflow stores, for studies and for the teacher's command line.

In `trainables`, only this module, `mlflow_schema` and `trainables.teacher.tracking` import MLflow. They are imported
only if something is to be delivered to MLflow.
"""

import difflib
import logging
import os
import shlex
import sqlite3
import ssl
import threading
import time
from base64 import b64encode
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from http.client import HTTPException
from pathlib import Path
from typing import Any, Final
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

# Set before MLflow is imported: no telemetry, and give up on a dead server after seconds instead of minutes.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
# MLflow would print two lines for every finished run on a server. The study itself prints the runs' location.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

import sqlalchemy
from mlflow import MlflowClient
from mlflow.exceptions import MlflowException
from sqlalchemy.exc import DBAPIError, SQLAlchemyError
from sqlalchemy.pool import NullPool

from trainables.process.errors import StudyError
from trainables.storage.atomic import locked
from trainables.storage.files import check_writable, free_space, missing_folders, remove_empty
from trainables.storage.mlflow_schema import SECONDS_FOR_A_LOCK, SchemaError, check_database, prepare_file
from trainables.storage.moved_store import find_artifacts_again
from trainables.storage.sqlite_uri import lock_of, sqlite_file
from trainables.storage.uris import redact, redact_place

_SECONDS_TO_ANSWER: Final = 10
_SECONDS_TO_CONNECT: Final = 25.0
_SECONDS_FOR_ANOTHER: Final = 25.0  # for another process to create the store
_SECONDS_FOR_TABLES: Final = 120  # for another process to create a database's tables
_LONGEST_REASON: Final = 300  # characters
_HEALTHY: Final = b"OK"  # MLflow server's answer at /health
_WEB: Final = frozenset({"http", "https"})
_DATABASES: Final = ("postgresql", "mysql", "mssql", "sqlite")
_OTHERS: Final = frozenset({"databricks", "databricks-uc", "uc"})
# Name of the connection timeout, in seconds, in each driver.
_TIMEOUTS: Final = {
    "psycopg": "connect_timeout", "psycopg2": "connect_timeout", "asyncpg": "timeout", "pg8000": "timeout",
    "pymysql": "connect_timeout", "mysqldb": "connect_timeout", "mysqlconnector": "connection_timeout",
    "pyodbc": "timeout", "pymssql": "login_timeout",
}  # fmt: skip
_PACKAGES: Final = {"psycopg": "psycopg[binary]", "psycopg2": "psycopg2-binary", "MySQLdb": "mysqlclient"}
_OR_DEFAULT_STORE: Final = "or leave out --tracking-uri to use a store in the output folder"
# Arbitrary, but equal in all processes, so only one process at a time creates a database's tables.
_ADVISORY_LOCK: Final = 7_291_533


class TrackingError(StudyError):
    """MLflow store or server cannot be used. The message contains no secrets."""


def check_tracking_uri(uri: str) -> None:
    """Check a tracking store or server before any work starts.

    The check takes at most 30 seconds if nothing answers. Missing database tables are created. A missing SQLite file is
    created later, by `open_client` at a study's start.

    Args:
        uri: URI of a server (`http://`), a database or an SQLite file.

    Raises:
        TrackingError: the store cannot be used.
    """
    scheme = uri.partition(":")[0].lower()
    dialect = scheme.partition("+")[0]
    if scheme in _WEB and "://" in uri:
        _check_server(uri)
    elif dialect in _DATABASES and "://" in uri:
        if dialect != "sqlite":
            _check_database(uri)
        elif (path := sqlite_file(uri)) is not None and not path.exists() and not path.is_symlink():
            _check_new_file(path)
            return
        open_client(uri)
    else:
        _check_other(uri, scheme)


def _check_new_file(path: Path) -> None:
    """Check that an SQLite file can be created. Nothing is left behind."""
    try:
        check_writable(path.parent)
    except OSError as error:
        raise TrackingError(
            f"the MLflow store cannot be opened ({path}): no file can be written in {path.parent} "
            f"({error.strerror}){_advice('', str(path))}"
        ) from None


def _check_server(uri: str) -> None:
    """Check that a server answers, is an MLflow server and accepts this user."""
    try:
        parts = urlsplit(uri)
        shown = f"{parts.scheme}://{parts.hostname or '?'}:{parts.port or '?'}"
        request = _health_request(parts)
    except ValueError as error:
        raise TrackingError(
            f"--tracking-uri {redact_place(uri)} is not a URI ({redact(str(error), uri)}): write it as "
            "http://HOST:PORT, with %XX for special characters in a password"
        ) from None
    answers: list[bytes] = []
    untrusted = None
    try:
        # The timeout of `urlopen` covers neither the name look-up nor a server sending byte by byte.
        _with_time_limit(_SECONDS_TO_ANSWER + 1, lambda: answers.append(_response_to(request)))
    except HTTPError:
        pass  # something answers; MLflow's client checks it below
    except (OSError, ValueError, HTTPException) as error:  # HTTPException: not an HTTP server
        if not (isinstance(error, URLError) and isinstance(error.reason, ssl.SSLCertVerificationError)):
            raise TrackingError(
                f"no MLflow tracking server answers at {shown} ({_reason(error, uri)}). Check --tracking-uri, start "
                f"the server, {_OR_DEFAULT_STORE}."
            ) from None
        untrusted = error.reason.verify_message  # MLflow's client may be configured to trust it
    try:
        with _without_retries():
            _with_time_limit(
                _SECONDS_TO_CONNECT - _SECONDS_TO_ANSWER,
                lambda: _check_search(MlflowClient(tracking_uri=uri), accepts_no_experiments=answers == [_HEALTHY]),
            )
    except Exception as error:
        if untrusted is not None and "CERTIFICATE_VERIFY_FAILED" in str(error):
            raise TrackingError(
                f"the certificate of the MLflow tracking server at {shown} is not trusted ({untrusted}). Give the "
                "path of the certificate in MLFLOW_TRACKING_SERVER_CERT_PATH, check --tracking-uri, "
                f"{_OR_DEFAULT_STORE}."
            ) from None
        status = error.get_http_status_code() if isinstance(error, MlflowException) else None
        if status in (401, 403) or any(f"error code {code}" in str(error) for code in (401, 403)):
            raise TrackingError(
                f"the MLflow tracking server at {shown} refuses access ({_reason(error, uri)}). Give user and password "
                "as --tracking-uri http://USER:PASSWORD@HOST:PORT, or in MLFLOW_TRACKING_USERNAME and "
                "MLFLOW_TRACKING_PASSWORD"
            ) from None
        raise TrackingError(
            f"the server at {shown} is not a working MLflow tracking server ({_reason(error, uri)}). Check host "
            f"and port of --tracking-uri, repair the server, {_OR_DEFAULT_STORE}."
        ) from None


def _health_request(parts: SplitResult) -> Request:
    """Build the request for a server's health. The URI's user and password go into the `Authorization` header."""
    address = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], f"{parts.path.rstrip('/')}/health", "", ""))
    request = Request(address)  # noqa: S310 - http(s) only
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {b64encode(pair.encode()).decode()}")
    return request


def _response_to(request: Request) -> bytes:
    with urlopen(request, timeout=_SECONDS_TO_ANSWER) as answer:  # noqa: S310 - http(s) only
        return bytes(answer.read(len(_HEALTHY) + 1))


@contextmanager
def _without_retries() -> Iterator[None]:
    """Disable retries and shorten the timeout of MLflow's client, to detect a missing server within seconds."""
    wanted = {"MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0", "MLFLOW_HTTP_REQUEST_TIMEOUT": str(_SECONDS_TO_ANSWER)}
    before = {name: os.environ.get(name) for name in wanted}
    os.environ.update(wanted)
    try:
        yield
    finally:
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


def _check_database(uri: str) -> None:
    """Check that a database on a server can be reached, read and written, and that MLflow can use the tables."""
    shown = redact_place(uri)
    try:
        url = sqlalchemy.engine.make_url(uri)
        driver = url.get_driver_name()
        name = _TIMEOUTS.get(driver)
        options = {name: _SECONDS_TO_ANSWER} if name is not None and name not in url.query else {}
        engine = sqlalchemy.create_engine(url, poolclass=NullPool, connect_args=options)
    except ImportError as error:
        package = _PACKAGES.get(str(error.name), error.name)
        raise TrackingError(
            f"--tracking-uri {shown} needs the Python package {error.name}, which is not installed: pip install "
            f"'{package}'"
        ) from None
    except (SQLAlchemyError, ValueError) as error:
        raise TrackingError(
            f"--tracking-uri {shown} is not a database URI ({_reason(error, uri)}): write it as "
            "postgresql://USER:PASSWORD@HOST:PORT/DATABASE, with %XX for special characters in a password"
        ) from None
    try:
        _with_time_limit(_SECONDS_TO_CONNECT, lambda: _check_schema(engine, _upgrade_command(uri)))
    except SchemaError as error:
        raise TrackingError(f"MLflow cannot use --tracking-uri {shown}: {error}") from None
    except Exception as error:
        raise TrackingError(
            f"the database at --tracking-uri {shown} cannot be used ({_reason(error, uri)}). Check that the "
            f"database is running, and check host, port, user, password and database name, {_OR_DEFAULT_STORE}."
        ) from None
    finally:
        engine.dispose()


def _check_schema(engine: sqlalchemy.Engine, upgrade: str) -> None:
    with engine.connect() as connection:
        check_database(connection, upgrade)
        if sqlalchemy.inspect(connection).has_table("experiments"):
            # Changes nothing, but fails without write permission.
            connection.execute(sqlalchemy.text("UPDATE experiments SET name = name WHERE 1 = 0"))
        connection.rollback()


def _check_other(uri: str, scheme: str) -> None:
    """Check a URI that names neither a server nor a database.

    Raises:
        TrackingError: the URI is a path or a file folder, or MLflow rejects the URI.
    """
    if "://" not in uri and scheme not in _OTHERS | {"file"}:
        if "@" in uri or scheme in _WEB:
            shown = f"***@{uri.rpartition('@')[2]}" if "@" in uri else uri
            raise TrackingError(
                f"--tracking-uri {shown} is not a URI: write it as http://HOST:PORT or "
                "http://USER:PASSWORD@HOST:PORT, or give an SQLite file as sqlite:////FOLDER/mlflow.db"
            )
        raise TrackingError(
            f"--tracking-uri {redact(uri)} is a path, but MLflow stores runs in a database: write "
            f"{_suggested(Path(uri))}, {_OR_DEFAULT_STORE}."
        )
    if scheme == "file":  # rejected here, because earlier versions of MLflow still accept such folders
        folder = Path(unquote(urlsplit(uri).path))
        raise TrackingError(
            f"--tracking-uri {redact_place(uri)}: MLflow no longer stores runs in folders of files; write "
            f"{_suggested(folder)}, {_OR_DEFAULT_STORE}. To convert the existing runs, see `mlflow migrate-filestore "
            "--help`."
        )
    try:
        with _without_retries():
            _with_time_limit(_SECONDS_TO_CONNECT, lambda: _check_search(MlflowClient(tracking_uri=uri)))
    except Exception as error:
        near = difflib.get_close_matches(scheme, (*_WEB, *_DATABASES), n=1)
        raise TrackingError(
            f"--tracking-uri {redact_place(uri)} cannot be used ({_reason(error, uri)}): it must begin with "
            "http://, https://, sqlite:///, postgresql://, mysql:// or mssql://"
            + (f"; did you mean {near[0]}://?" if near else "")
        ) from None


def _suggested(path: Path) -> str:
    from trainables.storage.sqlite_uri import sqlite_uri

    return sqlite_uri(path if path.suffix else path / "mlflow.db")


def _check_search(client: MlflowClient, *, accepts_no_experiments: bool = True) -> None:
    # MLflow's client takes an empty page from any web server for a store without experiments.
    if not client.search_experiments(max_results=1) and not accepts_no_experiments:
        raise ValueError("the answer is not that of MLflow")


def _with_time_limit(seconds: float, action: Callable[[], Any]) -> None:
    """Run an action, such as a name look-up, with a time limit.

    Raises:
        TimeoutError: the action did not finish. The action's thread keeps running.
        Exception: any error in the action.
    """
    raised: list[BaseException | None] = []

    def run() -> None:
        try:
            action()
            raised.append(None)
        except BaseException as error:  # raised again below
            raised.append(error)

    thread = threading.Thread(target=run, name="tracking-check", daemon=True)
    thread.start()
    thread.join(seconds)
    if not raised:
        raise TimeoutError(f"no answer within {seconds:.0f} s")
    if raised[0] is not None:
        raise raised[0]


def _reason(error: Exception, uri: str) -> str:
    """Return an error's cause in one line, without secrets and without library advice."""
    found: object = error.orig if isinstance(error, DBAPIError) and error.orig is not None else error
    found = found.reason if isinstance(found, URLError) else found
    lines = [line.strip() for line in redact(str(found), uri).splitlines() if "sqlalche.me" not in line]
    text = " ".join(line for line in lines if line) or type(found).__name__
    return text if len(text) <= _LONGEST_REASON else f"{text[:_LONGEST_REASON]}..."


def open_client(uri: str) -> MlflowClient:
    """Open a client for the store at `uri`. An SQLite file's schema is created if missing.

    Raises:
        TrackingError: the store cannot be opened.
    """
    for name in ("alembic", "mlflow"):
        logging.getLogger(name).setLevel(logging.WARNING)
    # This logger prints a traceback for each database error, although MLflow also raises the error.
    logging.getLogger("mlflow.store.db.utils").setLevel(logging.CRITICAL)
    try:
        if uri.lower().startswith("sqlite"):
            return _open_file(uri)
        with _exclusive_access(uri):
            client = MlflowClient(tracking_uri=uri)
            _check_search(client)
    except TrackingError:
        raise
    except SchemaError as error:
        raise TrackingError(f"the MLflow store cannot be opened ({redact_place(uri)}): {error}") from None
    except Exception as error:
        why = f"{_reason(error, uri)}{_advice(str(error), uri)}"
        raise TrackingError(f"the MLflow store cannot be opened ({redact_place(uri)}): {why}") from None
    return client


def _open_file(uri: str) -> MlflowClient:
    path = sqlite_file(uri)
    if path is None:
        raise TrackingError(
            f"--tracking-uri {redact_place(uri)} does not name a file: write it as sqlite:////FOLDER/mlflow.db "
            f"(an in-memory database is lost when the process ends), {_OR_DEFAULT_STORE}."
        )
    lock = lock_of(path)
    new = () if lock.exists() else (lock, *missing_folders(path.parent))
    path.parent.mkdir(parents=True, exist_ok=True)
    # If several processes create the schema at once, all but one fail.
    with _locked(path), _nothing_left_without(path, new):
        prepare_file(path, _upgrade_command(uri))
        with closing(sqlite3.connect(path, timeout=SECONDS_FOR_A_LOCK, isolation_level=None)) as connection:
            # In WAL mode, readers (the UI) and the writer do not block each other. The file keeps the mode.
            connection.execute("PRAGMA journal_mode=WAL")
            connection.execute("BEGIN IMMEDIATE")  # fails if the file cannot be written
            connection.execute("ROLLBACK")
        client = MlflowClient(tracking_uri=uri)
        _check_search(client)
        find_artifacts_again(path)
    return client


@contextmanager
def _nothing_left_without(path: Path, new: Sequence[Path]) -> Iterator[None]:
    """Remove a new lock file and new folders if the store itself is not created."""
    try:
        yield
    finally:
        if new and not path.exists():
            lock, *folders = new
            lock.unlink(missing_ok=True)
            remove_empty(folders)


@contextmanager
def _locked(path: Path) -> Iterator[None]:
    """Hold a store's lock. Wait for other processes creating the same store."""
    lock = lock_of(path)
    deadline = time.monotonic() + _SECONDS_FOR_ANOTHER
    with ExitStack() as stack:
        while True:
            try:
                stack.enter_context(locked(lock, wait=False))
                break
            except BlockingIOError:
                if time.monotonic() >= deadline:
                    raise TrackingError(
                        f"another process has been creating the MLflow store {path} for {_SECONDS_FOR_ANOTHER:.0f} s "
                        f"(it holds the lock {lock}): wait for it, end it, or use another store with --tracking-uri"
                    ) from None
            time.sleep(0.1)
        yield


@contextmanager
def _exclusive_access(uri: str) -> Iterator[None]:
    """Hold a lock in a PostgreSQL database. If several processes create the tables at once, all but one fail."""
    if not uri.lower().startswith("postgresql"):
        yield
        return
    engine = sqlalchemy.create_engine(uri, poolclass=NullPool)
    try:
        with engine.connect() as connection:
            if not sqlalchemy.inspect(connection).has_table("alembic_version"):
                connection.execute(sqlalchemy.text(f"SET lock_timeout = '{_SECONDS_FOR_TABLES}s'"))
                connection.execute(sqlalchemy.select(sqlalchemy.func.pg_advisory_lock(_ADVISORY_LOCK)))
            yield  # closing the connection releases the lock
    finally:
        engine.dispose()


def _upgrade_command(uri: str) -> str:
    return shlex.join(["mlflow", "db", "upgrade", redact_place(uri)])


def _advice(message: str, uri: str) -> str:
    path = sqlite_file(uri)
    if "disk is full" in message and path is not None:
        return f": there are {free_space(path)}. Make room there, or use another store with --tracking-uri"
    if "database is locked" in message or "database table is locked" in message:
        return (
            ". Another program has locked it for writing (a database browser, a backup, a study on another "
            "machine?). Close that program and start again, or use another store with --tracking-uri"
        )
    if "out-of-date database schema" in message or "Can't locate revision" in message:
        return (
            ". It was created by a version of MLflow other than the installed one: make a copy of it, then "
            f"upgrade it:\n  {_upgrade_command(uri)}\nor use another store with --tracking-uri"
        )
    return ". Use another store with --tracking-uri, or repair this one"


def find_experiment(client: MlflowClient, uri: str, name: str, *, artifacts: Path, note: str) -> str:
    """Return an experiment's ID. The experiment is created if missing.

    Args:
        client: client for the store.
        uri: store URI.
        name: experiment name.
        artifacts: artifact folder for a store in a file or a database. A server chooses the place itself.
        note: Markdown for a new experiment's page.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    location = None if uri.startswith(("http:", "https:")) else artifacts.absolute().as_uri()
    try:
        created = client.create_experiment(name, artifact_location=location, tags={"mlflow.note.content": note})
    except MlflowException:  # another process has just created the experiment
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise
        return str(experiment.experiment_id)
    return str(created)
