"""MLflow's store, opened with care: for studies and for the teacher's command line.

The only modules of `trainables` that import MLflow are this one and `trainables.teacher.tracking`; nobody imports them
unless something is to be delivered.
"""

import logging
import os
import sqlite3
from base64 import b64encode
from contextlib import closing, nullcontext
from pathlib import Path
from urllib.parse import SplitResult, unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

# Before mlflow is imported: no telemetry, and a dead server is given up on in seconds, not minutes.
os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "3")
os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "20")
# Two lines for every run that ends on a server; the study says where its runs are.
os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")

from mlflow import MlflowClient
from mlflow.exceptions import MlflowException

from trainables.moved_store import find_artifacts_again
from trainables.storage import locked
from trainables.uris import redact

_SQLITE = "sqlite:///"


class TrackingError(RuntimeError):
    """An MLflow store or server that cannot be used."""


def check_tracking_uri(uri: str) -> None:
    """Check that a tracking server answers, before any work.

    Raises:
        TrackingError: nothing answers there within ten seconds.
    """
    parts = urlsplit(uri)
    if parts.scheme not in ("http", "https"):
        return
    try:
        with urlopen(_health_of(parts), timeout=10):  # noqa: S310 - http(s) only, above
            pass
    except OSError as error:
        host = parts.hostname or "?"
        raise TrackingError(
            f"no MLflow tracking server answers at {parts.scheme}://{host}:{parts.port or '?'} ({error}). "
            "Start it, or leave --tracking-uri out to use a store in the output folder."
        ) from None


def _health_of(parts: SplitResult) -> Request:
    """Asks a server whether it is well; user and password of the URI go where HTTP wants them."""
    address = urlunsplit((parts.scheme, parts.netloc.rpartition("@")[2], f"{parts.path.rstrip('/')}/health", "", ""))
    request = Request(address)  # noqa: S310 - http(s) only
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
        request.add_header("Authorization", f"Basic {b64encode(pair.encode()).decode()}")
    return request


def open_client(uri: str) -> MlflowClient:
    """A client of the store at `uri`; a file's schema is made if it is not there.

    Raises:
        TrackingError: it cannot be opened.
    """
    logging.getLogger("alembic").setLevel(logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    path = Path(uri.removeprefix(_SQLITE)) if uri.startswith(_SQLITE) else None
    try:
        if path is not None:
            path.parent.mkdir(parents=True, exist_ok=True)
            # Readers (the UI) and the writer then do not wait for each other; the setting stays with the file.
            with closing(sqlite3.connect(path)) as connection:
                connection.execute("PRAGMA journal_mode=WAL")
        # Of several processes that make the schema at once, all but one fail.
        with nullcontext() if path is None else locked(path.with_suffix(".lock")):
            client = MlflowClient(tracking_uri=uri)
            client.search_experiments(max_results=1)
            if path is not None:
                find_artifacts_again(path)
    except Exception as error:
        raise TrackingError(f"the MLflow store cannot be opened ({redact(uri)}): {redact(str(error))}") from None
    return client


def find_experiment(client: MlflowClient, uri: str, name: str, *, artifacts: Path, note: str) -> str:
    """The identifier of an experiment, made if it is not there.

    Args:
        client: of the store.
        uri: the store's.
        name: the experiment's.
        artifacts: the folder for those of a store in a file or a database; a server knows where to put them.
        note: Markdown for a new experiment's page.
    """
    experiment = client.get_experiment_by_name(name)
    if experiment is not None:
        return str(experiment.experiment_id)
    location = None if uri.startswith(("http:", "https:")) else artifacts.absolute().as_uri()
    try:
        created = client.create_experiment(name, artifact_location=location, tags={"mlflow.note.content": note})
    except MlflowException:  # another process made it in this moment
        experiment = client.get_experiment_by_name(name)
        if experiment is None:
            raise
        return str(experiment.experiment_id)
    return str(created)
