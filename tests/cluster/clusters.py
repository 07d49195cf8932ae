"""A Ray cluster, an S3-compatible server and an MLflow server on PostgreSQL, on simulated machines."""

import json
import secrets
import shlex
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from study.ledger.ledger import StudyLedger
from study.plan.resolve import load_plan
from study.records import read_epochs, read_trials
from tests.cluster.machines import HOME, Machine, Network, Process, network
from tests.cluster.s3_server import BUCKET
from tests.study.inspection import read_journal
from tests.study.servers import _postgresql_programs, require

HEAD_PORT: Final = 6379
STORAGE_PORT: Final = 9000
MLFLOW_PORT: Final = 5000
DATABASE_PORT: Final = 5432
STORAGE: Final = f"s3://{BUCKET}/checkpoints?endpoint_override=storage:{STORAGE_PORT}&scheme=http"
TRACKING: Final = f"http://tracking:{MLFLOW_PORT}"
_SECONDS_TO_START: Final = 180.0
_TROUBLE: Final = "/tmp/trouble"
_IS_OPEN: Final = "import socket, sys; socket.create_connection((sys.argv[1], int(sys.argv[2])), timeout=1)"
_MAKE_BUCKET: Final = (
    "import sys, urllib.request as r; r.urlopen(r.Request(sys.argv[1], method='PUT', data=b''), timeout=5)"
)
# Written to standard output by a machine, because only machines reach the server.
_LIST_RUNS: Final = """
import json, sys
from mlflow import MlflowClient
client = MlflowClient(sys.argv[1])
found = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=1000)
print("RUNS" + json.dumps([[run.info.status, run.data.tags] for run in found]))
"""


class Cluster:
    """Machines with a running Ray cluster. Use `cluster()`.

    Args:
        machines: the network.
        head: Ray's head, which is also the driver's machine.
    """

    def __init__(self, machines: Network, head: Machine) -> None:
        self.network = machines
        self.head = head

    def join(self, name: str, *, cpus: int = 1, mounts: str = "", prefix: str = "") -> Machine:
        """Start a machine and add it to the Ray cluster, as in the documentation.

        Args:
            name: host name.
            cpus: number of trials at once.
            mounts: shell commands to change the machine's file system.
            prefix: shell words before the command.
        """
        machine, process = self.begin_to_join(name, cpus=cpus, mounts=mounts, prefix=prefix)
        end_of_start(process)
        return machine

    def begin_to_join(self, name: str, *, cpus: int = 1, mounts: str = "", prefix: str = "") -> tuple[Machine, Process]:
        """Do the same, but do not wait until Ray has started. Return the machine and the starting process."""
        machine = self.network.add(name, mounts=mounts)
        return machine, start_ray(machine, f"{prefix} ray start --address head:{HEAD_PORT} --num-cpus {cpus}")

    def remove(self, machine: Machine) -> None:
        """Take a machine out of the cluster, and end it. A lost machine would count as a member for a minute."""
        machine.run("ray", "stop", "--grace-period", "5")
        machine.end()

    def launch(self, *arguments: str, on: Machine | None = None, **environment: str) -> "Study":
        """Start a study on a machine, by default on the head."""
        return Study(on or self.head, arguments, environment)


class Study:
    """A study running on a machine of the cluster."""

    def __init__(self, machine: Machine, arguments: tuple[str, ...], environment: dict[str, str]) -> None:
        words = list(arguments)
        option = "--name" if "--name" in words else "--resume"
        self.machine = machine
        self.name = words[words.index(option) + 1]
        self.directory = machine.home / "studies" / self.name
        self.process: Process = machine.start(
            "python", "-m", "study.launch", *words, "--output-dir", "studies", **environment
        )

    @property
    def events(self) -> list[dict[str, Any]]:
        """Valid events of the journal so far."""
        path = self.directory / "journal.jsonl"
        return read_journal(path)[0] if path.exists() else []

    def wait_for_events(self, count: int, *, timeout: float = 120) -> None:
        """Wait until the journal has at least `count` events."""
        self.wait_until(lambda: len(self.events) >= count, timeout=timeout)

    def wait_until(self, reached: Callable[[], object], *, timeout: float = 120) -> None:
        """Wait for something in the running study. Fail if the study ends or `timeout` seconds pass."""
        deadline = time.monotonic() + timeout
        while not reached():
            assert self.process.poll() is None, self.process.said
            assert time.monotonic() < deadline, self.process.said
            time.sleep(0.1)

    def finish(self, *, code: int = 0, timeout: float = 180) -> str:
        """Wait for the end, check the exit code, and return the text."""
        found = self.process.wait(timeout)
        assert found == code, f"exit code {found}:\n{self.process.said}"
        return self.process.said


def start_ray(machine: Machine, line: str) -> Process:
    """Run a `ray start` line of the documentation on a machine, without waiting for the end."""
    return machine.start("bash", "-c", f"{line} --disable-usage-stats")


def end_of_start(starting: Process) -> None:
    """Wait until Ray has started."""
    assert starting.wait(_SECONDS_TO_START) == 0, starting.said


@contextmanager
def cluster(*, workers: int = 2, names: tuple[str, ...] = (), tracking: bool = False) -> Iterator[Cluster]:
    """Yield a Ray cluster with token authentication, and an S3-compatible server with an empty bucket.

    Args:
        workers: number of machines in addition to the head, named `worker1`, `worker2`, ...
        names: names of machines that may be added later.
        tracking: whether to start an MLflow server on PostgreSQL.
    """
    own = [f"worker{number}" for number in range(1, workers + 1)]
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    with network(["head", "storage", "tracking", *own, *names], **token) as machines:
        storage = machines.add("storage")
        serving = storage.start("python", "-m", "tests.cluster.s3_server", str(STORAGE_PORT), _TROUBLE)
        server = start_tracking(machines.add("tracking")) if tracking else None
        started = Cluster(machines, machines.add("head"))
        head = f"ray start --head --port {HEAD_PORT} --num-cpus 1 --include-dashboard false"
        end_of_start(start_ray(started.head, head))
        joining = [started.begin_to_join(name) for name in own]
        for _, process in joining:
            end_of_start(process)
        wait_for_port(started.head, "storage", STORAGE_PORT, serving)
        started.head.shell(f"python -c {shlex.quote(_MAKE_BUCKET)} http://storage:{STORAGE_PORT}/{BUCKET}")
        if server is not None:
            wait_for_port(started.head, "tracking", MLFLOW_PORT, server)
        yield started


def wait_for_port(machine: Machine, host: str, port: int, server: Process) -> None:
    """Wait until a machine reaches a server."""
    deadline = time.monotonic() + _SECONDS_TO_START
    while machine.run("python", "-S", "-c", _IS_OPEN, host, str(port)).returncode != 0:
        assert server.poll() is None, server.said
        assert time.monotonic() < deadline, server.said
        time.sleep(0.5)


def fail_requests(storage: Machine, share: float) -> None:
    """Let the S3-compatible server answer a share of all requests with 503."""
    (storage.root / _TROUBLE.removeprefix("/")).write_text(str(share))


def answers_of(storage: Machine) -> dict[str, int]:
    """Return how many requests the S3-compatible server answered with 503, and how many otherwise."""
    found: dict[str, int] = json.loads((storage.root / f"{_TROUBLE}.json".removeprefix("/")).read_text())
    return found


def start_tracking(machine: Machine) -> Process:
    """Start PostgreSQL and an MLflow server on a machine. Return the MLflow server."""
    start_database(machine)
    address = f"postgresql://owner@127.0.0.1:{DATABASE_PORT}/mlflow"
    return machine.start(
        "python", "-m", "mlflow", "server", "--host", "0.0.0.0", "--port", str(MLFLOW_PORT),
        "--backend-store-uri", address, "--artifacts-destination", f"{HOME}/artifacts", "--workers", "1",
        "--allowed-hosts", "*",
        MLFLOW_SERVER_ENABLE_JOB_EXECUTION="false",
    )  # fmt: skip


def start_database(machine: Machine) -> None:
    """Start PostgreSQL on a machine as the user `postgres`, or restart it with the same data."""
    programs = _postgresql_programs()
    require(programs, "PostgreSQL (apt-get install postgresql)")
    assert programs is not None
    programs, folder = (programs / "initdb").resolve().parent, "/home/database"
    is_new = not (machine.root / folder.removeprefix("/")).exists()
    as_user = f"cd /tmp; setpriv --reuid postgres --regid postgres --clear-groups --reset-env {programs}/"
    if is_new:
        machine.shell(f"mkdir {folder}; chown postgres:postgres {folder}")
        machine.shell(
            f"{as_user}initdb -D {folder}/data --username=owner --auth=trust --encoding=UTF8 --locale=C --no-sync"
        )
    control = f"{as_user}pg_ctl -D {folder}/data -l {folder}/log -w -o '-p {DATABASE_PORT} -k {folder}'"
    machine.shell(f"{control} restart -m immediate")
    if is_new:
        machine.shell(f"{as_user}createdb -h {folder} -p {DATABASE_PORT} -U owner mlflow")


def runs_of(machine: Machine, study_id: str) -> tuple[str, dict[str, list[str]]]:
    """Return the status of a study's run in MLflow, and the statuses of the runs of each trial."""
    said = machine.shell(f"python -c {shlex.quote(_LIST_RUNS)} {quote(TRACKING, safe=':/')}")
    listed = json.loads(next(line for line in said.splitlines() if line.startswith("RUNS")).removeprefix("RUNS"))
    own = [(status, tags) for status, tags in listed if tags.get("study_id") == study_id]
    trials: dict[str, list[str]] = {}
    for status, tags in own:
        if tags["kind"] == "trial":
            trials.setdefault(tags["trial_id"], []).append(status)
    (parent,) = [status for status, tags in own if tags["kind"] == "study"]
    return parent, trials


def assert_nothing_lost(study: Study, *, tracked: bool = False, failed: int = 0) -> None:
    """Assert that every planned trial ended exactly once, with each epoch once, in journal, records and MLflow.

    Args:
        study: an ended study.
        tracked: whether to check the runs on the MLflow server.
        failed: number of trials that failed.
    """
    plan = load_plan(study.directory)
    ledger = StudyLedger(plan, read_only=True)
    rows = {row["trial_id"]: row for row in read_trials(study.directory).to_pylist()}
    assert ledger.unfinished == []
    assert len(rows) == len(ledger.entries) == ledger.planned
    assert [row["status"] for row in rows.values()].count("failed") == failed
    epochs = [(row["trial_id"], row["epoch"]) for row in read_epochs(study.directory).to_pylist()]
    assert len(epochs) == len(set(epochs)), "an epoch is recorded twice"
    planned = [
        (name, epoch)
        for name, row in rows.items()
        if row["status"] == "finished"
        for epoch in range(1, row["epochs"] + 1)
    ]
    assert set(planned) <= set(epochs), "an epoch of a finished trial is missing"
    identities = [(row["config_id"], row["replicate"]) for row in rows.values()]
    assert len(identities) == len(set(identities)), "a trial ran twice"
    if tracked:
        parent, runs = runs_of(study.machine, plan.study_id)
        assert parent == "FINISHED"
        assert {trial: len(statuses) for trial, statuses in runs.items()} == dict.fromkeys(rows, 1)
        assert "RUNNING" not in {status for statuses in runs.values() for status in statuses}


def output_folder(study: Study) -> Path:
    """Return the driver's output folder as seen from outside."""
    return study.directory.parent
