"""Unusable tracking stores and servers are detected quickly, with a helpful message."""

import datetime
import http.server
import os
import shutil
import socket
import sqlite3
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat
from cryptography.x509.oid import NameOID
from mlflow import MlflowClient

from trainables.storage import mlflow_schema, mlflow_store
from trainables.storage.mlflow_store import TrackingError, check_tracking_uri, open_client
from trainables.storage.sqlite_uri import SQLitePathError, absolute_uri, sqlite_file, sqlite_uri

pytestmark = pytest.mark.study

SECRET = "hushhush"
CHARACTERS = "a?b %41 #c;d é+e&f'g\"h\\i=j@k:l,m{n}[o]$*~%"


@contextmanager
def silent_socket() -> Iterator[int]:
    """Yield the port of a program that accepts connections and never answers, like a firewall that drops packets."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


@contextmanager
def web_server(status: int, body: bytes, context: ssl.SSLContext | None = None, **headers: str) -> Iterator[int]:
    """Yield the port of a web server that gives the same answer to every request."""

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.rfile.read(int(self.headers.get("Content-Length") or 0))
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(body)

        do_POST = do_GET

        def log_message(self, *args):
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer)
    if context is not None:
        server.socket = context.wrap_socket(server.socket, server_side=True)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield server.server_port
    finally:
        server.shutdown()
        server.server_close()


def closed_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        return probe.getsockname()[1]


def refusal(uri: str) -> str:
    """Return the error for a tracking URI, which must come within 30 s and hide the secret."""
    began = time.monotonic()
    with pytest.raises(TrackingError) as error:
        check_tracking_uri(uri)
    assert time.monotonic() - began < 30
    message = str(error.value)
    assert "--tracking-uri" in message
    assert SECRET not in message
    return message


@pytest.fixture
def hurried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mlflow_store, "_SECONDS_TO_ANSWER", 2)
    monkeypatch.setattr(mlflow_store, "_SECONDS_TO_CONNECT", 5.0)


@pytest.mark.parametrize("scheme", ["http://me:hushhush@", "postgresql://me:hushhush@"])
@pytest.mark.parametrize("which", ["closed", "silent"])
def test_a_server_that_is_not_there_or_never_answers_is_found_out_soon(scheme, which, hurried):
    with silent_socket() as silent:
        port = silent if which == "silent" else closed_port()
        message = refusal(f"{scheme}127.0.0.1:{port}/x")
    assert f"127.0.0.1:{port}" in message
    assert ("refused" in message) == (which == "closed")
    assert ("tim" in message) == (which == "silent")  # "timed out", "timeout"


@pytest.mark.parametrize(
    ("status", "body", "says"),
    [
        (200, b"", "not a working MLflow tracking server"),
        (200, b"<html>hello</html>", "not a working MLflow tracking server"),
        (404, b"not found", "not a working MLflow tracking server"),
        (500, b"out of order", "not a working MLflow tracking server"),
        (401, b"who are you?", "refuses access"),
        (403, b'{"error_code": "PERMISSION_DENIED", "message": "no"}', "refuses access"),
    ],
)
def test_a_server_that_is_not_mlflows_or_lets_nobody_in_is_told_from_one_that_is_away(status, body, says):
    with web_server(status, body) as port:
        assert says in refusal(f"http://me:{SECRET}@127.0.0.1:{port}")
    assert "MLFLOW_HTTP_REQUEST_MAX_RETRIES" in os.environ
    assert os.environ["MLFLOW_HTTP_REQUEST_MAX_RETRIES"] != "0", "the study's own patience is as it was"


@pytest.mark.filterwarnings("ignore:Unverified HTTPS request")
def test_a_certificate_is_judged_by_mlflows_client_and_its_settings(tmp_path, monkeypatch):
    key, name = ec.generate_private_key(ec.SECP256R1()), x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "host")])
    now = datetime.datetime.now(datetime.UTC)
    certificate = x509.CertificateBuilder(name, name, key.public_key(), 1, now, now + datetime.timedelta(days=1))
    (tmp_path / "server.pem").write_bytes(
        key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption())
        + certificate.sign(key, hashes.SHA256()).public_bytes(Encoding.PEM)
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(tmp_path / "server.pem")
    with web_server(200, b'{"experiments": [{"experiment_id": "0", "name": "Default"}]}', context) as port:
        assert "is not trusted (self-signed certificate). Give the path of the certificate in" in refusal(
            f"https://127.0.0.1:{port}"
        )
        monkeypatch.setenv("MLFLOW_TRACKING_INSECURE_TLS", "true")
        check_tracking_uri(f"https://127.0.0.1:{port}")


@pytest.mark.parametrize(
    "banner", [b"SSH-2.0-OpenSSH_9.2\r\n", b"-ERR unknown command\r\n", b"\x15\x03\x01\x00\x02\x02\x16", b""]
)
def test_a_port_where_something_speaks_another_protocol_is_told(banner):
    with socket.create_server(("127.0.0.1", 0)) as listening:

        def answer():
            while True:
                try:
                    with listening.accept()[0] as asked:
                        asked.sendall(banner)
                except OSError:
                    return

        threading.Thread(target=answer, daemon=True).start()
        port = listening.getsockname()[1]
        assert f"no MLflow tracking server answers at http://127.0.0.1:{port}" in refusal(f"http://127.0.0.1:{port}")
        listening.shutdown(socket.SHUT_RDWR)


def test_a_server_that_answers_as_mlflow_does_is_taken():
    with web_server(200, b'{"experiments": [{"experiment_id": "0", "name": "Default"}]}') as port:
        check_tracking_uri(f"http://127.0.0.1:{port}")


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("file:///data/mlruns", "no longer stores runs in folders of files; write sqlite:////data/mlruns/mlflow.db"),
        ("file:mlruns", "no longer stores runs in folders of files"),
        ("mlruns", "is a path, but MLflow stores runs in a database: write sqlite:///"),
        ("/data/runs.db", "is a path, but MLflow stores runs in a database: write sqlite:////data/runs.db"),
        ("me:hushhush@host:5000", "--tracking-uri ***@host:5000 is not a URI: write it as http://HOST:PORT or"),
        ("http:127.0.0.1", "is not a URI: write it as http://HOST:PORT"),
        ("http:/me:hushhush@host:5000", "is not a URI"),
        ("postgresql:me:hushhush@host/d", "is not a URI"),
        ("sqllite:///runs.db", "did you mean sqlite://?"),
        ("htp://host:5000", "did you mean http://?"),
        ("postgres://u:hushhush@h/d", "did you mean postgresql://?"),
        ("postgresql+nothing://u:hushhush@127.0.0.1/d", "is not a database URI"),
        ("postgresql://u:hushhush@127.0.0.1:54x2/d", "is not a database URI"),
        ("mysql+pymysql://u:hushhush@127.0.0.1/d", "needs the Python package pymysql"),
        ("postgresql+psycopg2://u:hushhush@127.0.0.1/d", "pip install 'psycopg2-binary'"),
        ("http://[::1", "is not a URI"),
        ("http://127.0.0.1:50x0", "is not a URI"),
        ("http://127.0.0.1:99999", "is not a URI"),
        ("http://127.0.0.1:9/a b", "no MLflow tracking server answers at http://127.0.0.1:9"),
        ("http://a..b", "no MLflow tracking server answers at http://a..b"),
        ("sqlite://", "does not name a file"),
        ("sqlite://runs/mlflow.db", "does not name a file: write it as sqlite:////FOLDER/mlflow.db"),
        ("sqlite:////nowhere/x.db?mode=ro&uri=true", "does not name a file"),
        ("sqlite:///:memory:", "does not name a file"),
    ],
)
def test_what_is_no_tracking_store_is_refused_with_what_to_write_instead(uri, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = refusal(uri)
    assert says in message
    assert not list(tmp_path.iterdir())


def test_a_name_that_nobody_looks_up_is_given_up_on(monkeypatch):
    monkeypatch.setattr(mlflow_store, "_SECONDS_TO_ANSWER", 0.5)
    with monkeypatch.context() as patch:
        patch.setattr(socket, "getaddrinfo", lambda *given, **named: time.sleep(20))
        assert "no answer within 2 s" in refusal("http://host:5000")
    monkeypatch.setattr(mlflow_store, "_check_schema", lambda *given: time.sleep(20))
    monkeypatch.setattr(mlflow_store, "_SECONDS_TO_CONNECT", 1.0)
    assert "no answer within 1 s" in refusal(f"postgresql://u:{SECRET}@host/d")


def test_a_path_that_is_a_folder_or_no_database_is_told(tmp_path):
    assert "is a folder: give a file" in refusal(f"sqlite:///{tmp_path}")
    path = tmp_path / "mlflow.db"
    path.write_text("not a database, and long enough to be read as one" * 100)
    before = path.read_bytes()
    assert "but not an SQLite database" in refusal(f"sqlite:///{path}")
    assert path.read_bytes() == before
    os.mkfifo(tmp_path / "pipe")
    assert "is a device or a pipe: give a file" in refusal(f"sqlite:///{tmp_path}/pipe")
    assert (tmp_path / "pipe").is_fifo()
    (tmp_path / "file").touch()
    assert "cannot be opened" in refusal(f"sqlite:///{tmp_path}/file/mlflow.db")


LOCK = (
    "import sqlite3, sys; c = sqlite3.connect(sys.argv[1]); c.execute('BEGIN EXCLUSIVE'); print(1, flush=True); input()"
)


@pytest.mark.launcher
def test_a_store_that_another_process_has_locked_is_told_with_what_to_do(complete, tmp_path, monkeypatch):
    monkeypatch.setattr(mlflow_schema, "SECONDS_FOR_A_LOCK", 0.5)
    monkeypatch.setattr(mlflow_store, "SECONDS_FOR_A_LOCK", 0.5)
    for mode in ("WAL", "DELETE"):
        each = tmp_path / mode / "mlflow.db"
        each.parent.mkdir()
        shutil.copy(complete, each)
        with closing(sqlite3.connect(each)) as connection:
            connection.execute(f"PRAGMA journal_mode={mode}")
        holder = subprocess.Popen([sys.executable, "-c", LOCK, each], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        try:
            holder.stdout.readline()
            message = refusal(f"sqlite:///{each}")
        finally:
            holder.communicate(b"\n")
        assert "database is locked" in message
        assert "Close that program and start again" in message
        check_tracking_uri(f"sqlite:///{each}")


def test_one_that_is_being_made_is_waited_for_and_not_for_ever(tmp_path, monkeypatch):
    monkeypatch.setattr(mlflow_store, "_SECONDS_FOR_ANOTHER", 0.5)
    with mlflow_store.locked(tmp_path / "mlflow.lock"):
        check_tracking_uri(f"sqlite:///{tmp_path}/mlflow.db")  # a missing file is created once a study begins
        with pytest.raises(TrackingError, match="another process has been creating"):
            mlflow_store.open_client(f"sqlite:///{tmp_path}/mlflow.db")


@pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to become a user who may not write")
def test_a_store_that_may_not_be_written_is_told(complete, tmp_path):
    path = tmp_path / "mlflow.db"
    shutil.copy(complete, path)
    tmp_path.chmod(0o555)
    for file in tmp_path.iterdir():
        file.chmod(0o444)
    for folder in tmp_path.parents:
        if folder.owner() == "root" and folder != Path("/") and not folder.stat().st_mode & 0o001:
            folder.chmod(folder.stat().st_mode | 0o011)
    os.seteuid(65534)
    try:
        message = refusal(f"sqlite:///{path}")
        fresh = refusal(f"sqlite:///{tmp_path}/other.db")
    finally:
        os.seteuid(0)
    assert "cannot be opened" in message
    assert "Permission denied" in message + fresh or "readonly" in message


@pytest.fixture(scope="module")
def odd_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("odd") / CHARACTERS
    folder.mkdir()
    return folder


def test_every_character_of_a_path_reaches_sqlite_and_the_artifacts(odd_folder):
    uri = sqlite_uri(odd_folder / "mlflow.db")
    client = open_client(uri)
    experiment = mlflow_store.find_experiment(client, uri, "one", artifacts=odd_folder / "mlartifacts", note="")
    run = client.create_run(experiment).info.run_id
    (odd_folder / "a.txt").write_text("hello")
    client.log_artifact(run, str(odd_folder / "a.txt"))
    plain = MlflowClient(uri)
    assert Path(plain.download_artifacts(run, "a.txt")).read_text() == "hello"
    assert {path.name for path in odd_folder.iterdir()} >= {"mlflow.db", "mlflow.lock", "mlartifacts"}
    assert [path.name for path in odd_folder.parent.iterdir()] == [CHARACTERS], "no second folder of a similar name"


@pytest.mark.parametrize("character", sorted(set(CHARACTERS)))
def test_a_uri_names_the_file_that_it_was_made_of(character):
    for path in (Path(f"/a{character}b/x.db"), Path(f"/{character}/x.db"), Path(f"/a/{character}{character}")):
        if character not in "\\/":
            assert sqlite_file(sqlite_uri(path)) == path
    assert sqlite_uri(Path("/plain/x.db")) == "sqlite:////plain/x.db"


def test_a_path_that_is_no_text_is_refused_by_its_character():
    with pytest.raises(SQLitePathError, match=r"contains the character '\\udcff'"):
        sqlite_uri(Path(os.fsdecode(b"/tmp/\xff/mlflow.db")))


def test_a_relative_uri_holds_in_every_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert absolute_uri("sqlite:///runs/x.db") == f"sqlite:///{tmp_path}/runs/x.db"
    assert absolute_uri("sqlite:///x.db?timeout=30") == f"sqlite:///{tmp_path}/x.db?timeout=30"
    assert absolute_uri("sqlite:///file:x.db?nolock=1&uri=true") == f"sqlite:///file:{tmp_path}/x.db?nolock=1&uri=true"
    for other in (
        "sqlite:////runs/x.db",
        "sqlite:////runs/x.db?timeout=30",
        "http://host:5000",
        "postgresql://h/d",
        "sqlite://",
        "sqlite://runs/x.db",
    ):
        assert absolute_uri(other) == other
