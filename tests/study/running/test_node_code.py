"""Nodes without this package: a real cluster with another virtual environment."""

import os
import subprocess
import sys
import sysconfig
import venv
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.running.node_code import shipped_code
from tests.study.inspection import assert_whole
from tests.study.servers import free_port, listens, running
from tests.user_data import COLUMNS, DATA
from tests.user_methods import METHOD
from tests.user_nets import BLOCKS, NET, write
from trainables.process.versions import code_digest

ROOT = Path(__file__).parents[3]


# Without these, Ray uses the machine's network address, and a cluster made by `ray start` asks for a token.
ON_LOOPBACK = {
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "RAY_AUTH_TOKEN": "a-token-for-tests-of-thirty-two-letters-or-more",
}


@pytest.fixture(scope="module")
def bare_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Address of a cluster with a Python that has only the dependencies."""
    home = tmp_path_factory.mktemp("bare")
    venv.create(home, with_pip=False)
    site = next((home / "lib").glob("python*")) / "site-packages"
    # A .pth file with this path makes the packages importable, but not the editable installs.
    (site / "dependencies.pth").write_text(sysconfig.get_path("purelib") + "\n")
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [
        home / "bin" / "python", "-m", "ray.scripts.scripts", "start", "--head", "--block", "--num-cpus=2",
        "--node-ip-address=127.0.0.1", f"--port={port}", "--include-dashboard=false", "--disable-usage-stats",
    ]  # fmt: skip
    with running(command, lambda: listens(port), log=home / "head.log", cwd=home, env=environment | ON_LOOPBACK):
        yield f"127.0.0.1:{port}"


# The user's folder is gone before the first task: the driver removes it when it tries the network out.
REMOVING = """
import shutil

shutil.rmtree("{folder}", ignore_errors=True)
"""


def study_on(address: str, folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run a study from a folder without the code, because workers also import from the driver's working directory."""
    folder.mkdir()
    return subprocess.run(
        [sys.executable, "-m", "study.launch", "--space", "adapter_width", "--smoke", "--teacher", "cnn_8_16",
         "--name", "far", "--output-dir", str(folder), "--address", address, *arguments],
        cwd=folder, capture_output=True, text=True, timeout=500, check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "120"} | ON_LOOPBACK,
    )  # fmt: skip


@pytest.mark.slow
def test_nodes_without_the_package_are_refused_and_what_to_do_is_said(bare_cluster, tmp_path):
    done = study_on(bare_cluster, tmp_path / "out")
    assert done.returncode == 1
    assert "pesfkd is not installed on 127.0.0.1" in done.stderr
    assert "--ship-code" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.slow
def test_nodes_without_the_package_run_a_study_that_ships_it(bare_cluster, tmp_path):
    mine = write(
        tmp_path / "mine",
        method=METHOD,
        data=DATA,
        columns=COLUMNS,
        net=REMOVING.format(folder=tmp_path / "mine") + NET,
        blocks=BLOCKS,
    )
    own = ("--student", f"{mine}/net.py:make", "--teacher", f"{mine}/net.py:plain", "--set", "kd_weight=0.1")
    own += ("--dataset", f"{mine}/data.py:make", "--method", f"{mine}/method.py:METHOD")
    search = ("--space", "none", "--search", "matching_power=1:4")
    done = study_on(bare_cluster, tmp_path / "out", "--ship-code", *search, *own)
    assert done.returncode == 0, done.stderr
    assert not mine.exists()  # nodes get the code from the study alone
    assert_whole(tmp_path / "out" / "far")


def test_what_is_shipped_are_the_four_packages():
    folders = [Path(folder) for folder in shipped_code()["py_modules"]]
    assert [folder.name for folder in folders] == ["study", "trainables", "search_spaces", "analysis"]
    assert all((folder / "__init__.py").is_file() for folder in folders)


def test_the_digest_of_the_code_is_that_of_its_text():
    assert code_digest() == code_digest()
    assert len(code_digest()) == 12
