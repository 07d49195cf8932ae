"""Studies with a real tracking server that stops, fails or is slow, and recovers or not."""

import http.client
import http.server
import signal
import threading
import time
from contextlib import ExitStack
from itertools import takewhile

import pytest
from mlflow import MlflowClient

from study.launch import main as launch_main
from study.plan.resolve import load_plan
from study.records import read_trials
from study.sync import main as sync_command
from tests.study.inspection import assert_whole, runs_of
from tests.study.processes import start_without_ray, wait_for_trials
from tests.study.servers import free_port, mlflow_arguments, mlflow_server

STUDY = ("--space", "adapter_width", "--trials", "16", "--promising", "1", "--replicates", "2", "--epochs", "3")


def start_slow(directory, tracking_uri):
    arguments = ("--name", directory.name, "--output-dir", directory.parent, "--tracking-uri", tracking_uri)
    return start_without_ray(*STUDY, *arguments)


class Server:
    """`mlflow server` on loopback. The database remains when the server stops."""

    def __init__(self, folder):
        self._folder = folder
        self.port = free_port()
        self.uri = f"http://127.0.0.1:{self.port}"
        self._running = ExitStack()

    def start(self):
        arguments = mlflow_arguments(self.port, self._folder / "server.db", self._folder / "files")
        self._running = ExitStack()
        server = mlflow_server(arguments, self._folder, port=self.port, end_by=signal.SIGKILL)
        self._running.enter_context(server)

    def kill(self):
        self._running.close()


class Proxy(http.server.ThreadingHTTPServer):
    """Proxy for the server that can answer 500 or delay answers."""

    def __init__(self, port):
        super().__init__(("127.0.0.1", 0), _Handler)
        self.behind, self.broken, self.delay, self.told = port, False, 0.0, 0
        self.uri = f"http://127.0.0.1:{self.server_address[1]}"


class _Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def _forward(self):
        body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        time.sleep(self.server.delay)
        if self.server.broken:
            self.server.told += 1
            return self._answer(500, [("Content-Type", "text/plain")], b"out of order")
        connection = http.client.HTTPConnection("127.0.0.1", self.server.behind, timeout=60)
        connection.request(self.command, self.path, body, {**self.headers, "Connection": "close"})
        answer = connection.getresponse()
        content = answer.read()
        kept = [(k, v) for k, v in answer.getheaders() if k.lower() not in ("transfer-encoding", "content-length")]
        return self._answer(answer.status, kept, content)

    def _answer(self, status, headers, content):
        self.send_response(status)
        for name, value in (*headers, ("Content-Length", str(len(content)))):
            self.send_header(name, value)
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = _forward

    def log_message(self, *args):
        pass


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Server that every test leaves running, because it takes longer to start than a study."""
    server = Server(tmp_path_factory.mktemp("server"))
    server.start()
    yield server
    server.kill()


@pytest.mark.fault
def test_a_study_delivers_to_a_real_tracking_server(output_dir, server, command):
    done = command(
        launch_main, "--space", "adapter_width", "--smoke", "--name", "served", "--output-dir", output_dir,
        "--tracking-uri", server.uri, "--executor", "in-process",
    )  # fmt: skip
    assert done.code == 0, done.said
    assert_whole(output_dir / "served")
    parent, _ = runs_of(load_plan(output_dir / "served"))
    artifacts = {artifact.path for artifact in MlflowClient(server.uri).list_artifacts(parent.info.run_id)}
    assert artifacts == {"plan.json", "summary.json", "records", "figures", "report.html"}


@pytest.mark.fault
def test_a_server_that_answers_500_and_then_late_gets_everything(output_dir, server):
    proxy = Proxy(server.port)
    threading.Thread(target=proxy.serve_forever, daemon=True).start()
    directory = output_dir / "broken-server"
    process = start_slow(directory, proxy.uri)
    try:
        wait_for_trials(process, directory, 20, timeout=240)
        proxy.broken = True
        wait_for_trials(process, directory, 60)
        lines = iter(process.stderr.readline, "")
        said = "".join(takewhile(lambda line: "MLflow accepts nothing at the moment" not in line, lines))
        assert process.poll() is None, said
        proxy.broken, proxy.delay = False, 0.3
        said += process.communicate(timeout=400)[1]
    finally:
        process.kill()
        proxy.shutdown()
    assert process.returncode == 0, said
    assert proxy.told
    assert "MLflow accepts trials again" in said
    assert_whole(directory, server.uri)


@pytest.mark.fault
def test_a_server_that_goes_and_comes_back_loses_nothing_and_one_that_stays_away_gets_it_later(
    output_dir, server, launch
):
    directory = output_dir / "left-alone"
    process = start_slow(directory, server.uri)
    try:
        wait_for_trials(process, directory, 20, timeout=240)
        server.kill()
        wait_for_trials(process, directory, 45)
        process.send_signal(signal.SIGSTOP)  # so that the study does not end before the server answers
        server.start()
        process.send_signal(signal.SIGCONT)
        wait_for_trials(process, directory, 70)
        server.kill()
        said = process.communicate(timeout=500)[1]
    finally:
        process.kill()
    assert process.returncode == 3, said
    assert "python -m study.sync left-alone --output-dir" in said
    assert read_trials(directory).num_rows == load_plan(directory).total_trials

    sync = ("left-alone", "--output-dir", output_dir)
    refused = launch(*sync, module="study.sync")
    assert refused.returncode == 1
    assert "no MLflow tracking server answers" in refused.stderr

    server.start()
    for _ in range(2):  # the second time changes nothing
        done = launch(*sync, module="study.sync")
        assert done.returncode == 0, done.stderr
        assert_whole(directory)
    assert "MLflow has all 22 ended trials of left-alone" in done.stdout
    parent, children = runs_of(load_plan(directory))
    assert parent.info.status == "FINISHED"
    assert len(children) == 22


@pytest.mark.parametrize(
    ("arguments", "says"),
    [(("nothing",), "no study 'nothing'"), (("../nothing",), "not a valid study name"), ((), "NAME is missing")],
)
def test_what_cannot_be_synced_is_refused(command, tmp_path, arguments, says):
    done = command(sync_command, *arguments, "--output-dir", tmp_path)
    assert done.code == 2
    assert says in done.err
