"""Fixtures shared by many tests: a real small study, and real data if available."""

import io
import json
import logging
import os
import secrets
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, nullcontext, redirect_stderr
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import hypothesis
import pyarrow.fs as pafs
import pytest
from moto.server import ThreadedMotoServer

from tests.forking import Forked, Process, environment_of_server, environment_to_inherit, may_fork

pytest_plugins = ["tests.tiers"]

Launch = Callable[..., subprocess.CompletedProcess[str]]


# No test checks a duration, and the machine may be busy.
hypothesis.settings.register_profile("patient", deadline=None)
hypothesis.settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Start the files with the longest total time first, then studies, because the last file to start delays the end.

    pytest-xdist keeps this order with `--no-loadscope-reorder`. Without it, the file with the most tests starts first.
    """
    items.sort(key=lambda item: (item.get_closest_marker("timeout") is None, "study" not in item.path.parts))


def pytest_collection_finish() -> None:
    """Store the environment before a test changes it."""
    environment_of_server()


class Said(NamedTuple):
    """Exit code and output of a command line."""

    code: int
    out: str
    err: str

    @property
    def said(self) -> str:
        """Stdout followed by stderr."""
        return self.out + self.err


class StudyRun(NamedTuple):
    """State of a study directly after the run. Later changes of the folder do not affect it."""

    directory: Path
    result: dict[str, Any]  # printed by --json
    said: str  # stderr
    summary: dict[str, Any]  # content of summary.json


def start_process(
    module: str,
    *arguments: str | Path,
    stdout: int | None = None,
    stderr: int | None = None,
    forks: bool = True,
    **environment: str,
) -> Process:
    """Start a command of the project. Output goes to pipes, or to the given file descriptors."""
    environment = {**environment_to_inherit(), "COLUMNS": "120", **environment}
    words = [str(each) for each in arguments]
    if forks and may_fork(environment):
        return Forked(module, words, environment, stdout=stdout, stderr=stderr)
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-m", module, *words], env=environment, text=True,
        stdout=pipe if stdout is None else stdout, stderr=pipe if stderr is None else stderr,
    )  # fmt: skip


def run_launcher(
    *arguments: str | Path, timeout: float = 240, module: str = "study.launch", forks: bool = True, **environment: str
) -> subprocess.CompletedProcess[str]:
    """Run the real command line in a separate process."""
    process = start_process(module, *arguments, forks=forks, **environment)
    try:
        said = process.communicate(timeout=timeout)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    return subprocess.CompletedProcess(process.args, process.returncode, *said)


@pytest.fixture(scope="session", autouse=True)
def no_wait_for_the_disk() -> Iterator[None]:
    """Replace `os.fsync` in this process. No test cuts the power, and waiting takes a tenth of the unit tests' time."""
    with mock.patch("os.fsync"):
        yield


@pytest.fixture(scope="session")
def tables_made_once(tmp_path_factory: pytest.TempPathFactory) -> Callable[[], AbstractContextManager[None]]:
    """Return a context in which MLflow creates its tables once and then copies them, if MLflow is imported at all."""
    folder = tmp_path_factory.mktemp("mlflow_tables")

    def context() -> AbstractContextManager[None]:
        if "mlflow" not in sys.modules:
            return nullcontext()
        from tests.mlflow_tables import made_once

        return made_once(folder)

    return context


@pytest.fixture
def command(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str],
    tables_made_once: Callable[[], AbstractContextManager[None]],
) -> Callable[..., Said]:  # fmt: skip
    """Return a function that runs the `main` of a command line in this process.

    Output is captured from the file descriptors, because a study writes the result to them.
    """

    def run(main: Callable[[], None], *arguments: object) -> Said:
        monkeypatch.setattr(sys, "argv", ["", *map(str, arguments)])
        capfd.readouterr()
        code: Any = 0
        try:
            with tables_made_once():
                main()
        except SystemExit as leaving:
            code = leaving.code
        return Said(int(code or 0), *capfd.readouterr())

    return run


@pytest.fixture(scope="session")
def full_device(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a device that accepts no bytes.

    On machines without /dev/full, a redirection to that name would create a file, so a device is made.
    """
    device = Path("/dev/full")
    if not device.is_char_device():
        device = tmp_path_factory.mktemp("devices") / "full"
        try:
            os.mknod(device, 0o666 | stat.S_IFCHR, os.makedev(1, 7))
        except PermissionError:
            pytest.skip("this machine has no /dev/full")
    return device


@pytest.fixture(scope="session")
def launch() -> Launch:
    return run_launcher


@pytest.fixture(scope="session")
def output_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Output folder shared by the studies of a test run, including a teacher and an MLflow store."""
    return tmp_path_factory.mktemp("study_results")


@pytest.fixture(scope="session")
def small_study_run(tmp_path_factory: pytest.TempPathFactory) -> StudyRun:
    """Study run by the real launcher, alone in an output folder."""
    output_dir = tmp_path_factory.mktemp("small_study")
    done = run_launcher(
        "--space", "adapter_width", "--trials", "6", "--promising", "2", "--replicates", "2", "--epochs", "3",
        "--name", "small", "--output-dir", output_dir, "--json", timeout=540,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    directory = output_dir / "small"
    summary = json.loads((directory / "summary.json").read_text())
    return StudyRun(directory, json.loads(done.stdout), done.stderr, summary)


@pytest.fixture(scope="session")
def small_study(small_study_run: StudyRun) -> Path:
    """Folder of a small study run by the real launcher."""
    return small_study_run.directory


@pytest.fixture(scope="session")
def in_process_study_run(
    tmp_path_factory: pytest.TempPathFactory, tables_made_once: Callable[[], AbstractContextManager[None]]
) -> StudyRun:
    """The study of `small_study_run`, with trials one after the other in this process, without Ray."""
    from study.launch import main

    output_dir = tmp_path_factory.mktemp("in_process_study")
    arguments = [
        "--space", "adapter_width", "--trials", "6", "--promising", "2", "--replicates", "2", "--epochs", "3",
        "--name", "small", "--output-dir", str(output_dir), "--json", "--executor", "in-process",
    ]  # fmt: skip
    said = io.StringIO()
    with (
        tables_made_once(), mock.patch.object(sys, "argv", ["", *arguments]), redirect_stderr(said),
        pytest.raises(SystemExit) as left,
    ):  # fmt: skip
        main()
    assert not left.value.code, said.getvalue()
    summary = json.loads((output_dir / "small" / "summary.json").read_text())
    return StudyRun(output_dir / "small", summary, said.getvalue(), summary)


@pytest.fixture(scope="session")
def in_process_study(in_process_study_run: StudyRun) -> Path:
    """Folder of a small study run in this process, which takes a third of the launcher's time."""
    return in_process_study_run.directory


@pytest.fixture(scope="session")
def golden_root() -> Path:
    """Folder with outputs of reference models. Tests that need it are skipped without it, unless it is required."""
    return _folder("PESFKD_GOLDEN_ROOT", "reference answers of the CIFAR models")


@pytest.fixture(scope="session")
def data_root() -> Path:
    """Folder with the published files of Fashion-MNIST, CIFAR-100 and SST-2. Tests are skipped without it, as above."""
    return _folder("PESFKD_DATA_ROOT", "the published files of Fashion-MNIST, CIFAR-100 and SST-2")


# Credentials for the server below. They replace all credentials of this machine.
S3_ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_CONFIG_FILE": "/nonexistent",
    "AWS_SHARED_CREDENTIALS_FILE": "/nonexistent",
}


class S3:
    """S3-compatible server on loopback.

    Args:
        port: port of the server.
    """

    def __init__(self, port: int) -> None:
        self.port = port

    def uri(self, place: str, *, user: str = "", **parameters: str) -> str:
        """Return the URI of a bucket or of a folder in a bucket."""
        listed = "".join(f"&{name}={value}" for name, value in parameters.items())
        return f"s3://{user}{place}?endpoint_override=127.0.0.1:{self.port}&scheme=http{listed}"

    def new_bucket(self) -> str:
        """Create a bucket for one test and return the name."""
        name = f"bucket-{secrets.token_hex(4)}"
        system, _ = pafs.FileSystem.from_uri(self.uri(name, allow_bucket_creation="true"))
        system.create_dir(name)
        return name

    def names(self, bucket: str) -> set[str]:
        """Return the names of all objects in a bucket. Other processes may add and remove objects at the same time."""
        system, _ = pafs.FileSystem.from_uri(self.uri(bucket))
        found = system.get_file_info(pafs.FileSelector(bucket, recursive=True))
        return {info.path.removeprefix(f"{bucket}/") for info in found if info.type == pafs.FileType.File}

    def objects(self, bucket: str) -> dict[str, bytes]:
        """Return the content of all objects in a bucket by name. No other process may write at the same time."""
        system, _ = pafs.FileSystem.from_uri(self.uri(bucket))
        return {name: system.open_input_stream(f"{bucket}/{name}").read() for name in self.names(bucket)}

    def put(self, bucket: str, name: str, content: bytes) -> None:
        """Write an object and replace an existing one."""
        system, _ = pafs.FileSystem.from_uri(self.uri(bucket))
        with system.open_output_stream(f"{bucket}/{name}") as stream:
            stream.write(content)


@pytest.fixture(scope="session")
def s3_server() -> Iterator[int]:
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    yield server.get_host_and_port()[1]
    server.stop()


@pytest.fixture
def s3(s3_server: int, monkeypatch: pytest.MonkeyPatch) -> S3:
    """Return a running server, with credentials for it in the environment."""
    for name, value in S3_ENVIRONMENT.items():
        monkeypatch.setenv(name, value)
    for name in ("AWS_PROFILE", "AWS_SESSION_TOKEN", "AWS_DEFAULT_REGION"):
        monkeypatch.delenv(name, raising=False)
    return S3(s3_server)


def _folder(variable: str, what: str) -> Path:
    """Return the folder named by an environment variable. Without it, skip or fail the test."""
    value = os.environ.get(variable)
    if value and Path(value).is_dir():
        return Path(value)
    if os.environ.get("PESFKD_REQUIRE_DATA"):
        pytest.fail(f"{what} are required here: {variable} is {value!r}")
    pytest.skip(f"needs {what}: set {variable} to their folder")
