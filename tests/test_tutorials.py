"""The tutorials run as written, in one folder and in their order, so that later ones read studies of earlier ones."""

import os
import re
import shlex
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from study.check import main as check_main
from study.confirm import main as confirm_main
from study.launch import main as launch_main
from study.power import main as power_main
from study.sync import main as sync_main
from tests.conftest import run_launcher
from tests.doc_blocks import ROOT, TUTORIALS, Block, blocks
from tests.study.servers import free_port, listens, running
from tests.text_tasks import write_rte
from tests.user_nets import new_process
from trainables.teacher.command import main as teacher_main

MAINS = {
    "study.launch": launch_main,
    "study.confirm": confirm_main,
    "study.power": power_main,
    "study.check": check_main,
    "study.sync": sync_main,
    "trainables.teacher": teacher_main,
}


@pytest.fixture(scope="module")
def workplace(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("tutorials")


@pytest.fixture
def there(workplace: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    monkeypatch.chdir(workplace)
    with new_process():
        yield workplace


def blocks_of(name: str) -> list[Block]:
    found = [each for each in blocks() if each.page == f"docs/tutorials/{name}.md"]
    assert found, name
    return [each for each in found if not each.reason]


@pytest.mark.study
@pytest.mark.parametrize("name", [name for name in TUTORIALS if name != "cluster"])
def test_a_tutorial_runs_as_written(name, there, command, tables_made_once):
    if name == "text_task" and not (there / "data").exists():
        write_rte(there / "data")  # stands in for the download
    shown = []
    for block in blocks_of(name):
        if block.kind == "python":
            file = re.match(r"# (\w+\.py)\n", block.text)
            if file:
                Path(file[1]).write_text(block.text, encoding="utf-8")
            else:
                with tables_made_once():
                    exec(block.text, {})
            continue
        for line in block.commands:
            _, _, module, *arguments = shlex.split(line)
            done = command(MAINS[module], *arguments)
            assert done.code == 0, f"{line}\n{done.said}"
            shown.append(done.said)
    if name == "first_study":
        assert "nothing has been written" in shown[0]
        assert "13 finished" in shown[1]
        assert Path("study_results/first/report.html").is_file()


@pytest.mark.slow
def test_the_tutorial_on_a_cluster_runs_on_two_nodes(there, tmp_path):
    """The nodes are started by the commands of the tutorial, in the foreground, so that no other Ray is stopped."""
    starts = [each for block in blocks() if block.page.endswith("tutorials/cluster.md") for each in block.commands]
    (head,) = (each for each in starts if "--head" in each)
    (second,) = (each for each in starts if each.startswith("ray start --address"))
    (study,) = (each for block in blocks_of("cluster") for each in block.commands)
    port = str(free_port())
    environment = {
        **os.environ,
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": "a-token-for-tests-of-thirty-two-letters-or-more",
        "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "1",
    }
    ray = [sys.executable, "-m", "ray.scripts.scripts"]

    def node(line: str) -> list[str]:
        words = shlex.split(line.replace("6399", port))[1:]
        return [*ray, *words, "--block", "--disable-usage-stats", "--node-ip-address=127.0.0.1"]

    ready = "Ray runtime started"
    logs = [tmp_path / "head.log", tmp_path / "second.log"]
    with (
        running(node(head), lambda: listens(int(port)), log=logs[0], cwd=tmp_path, env=environment),
        running(node(second), lambda: ready in logs[1].read_text(), log=logs[1], cwd=tmp_path, env=environment),
    ):
        arguments = shlex.split(study.replace("6399", port))[3:]
        given = {name: environment[name] for name in ("RAY_AUTH_MODE", "RAY_AUTH_TOKEN")}
        done = run_launcher(*arguments, forks=False, PYTHONPATH=str(ROOT), **given)
    assert done.returncode == 0, done.stderr
    assert "5 finished" in done.stdout
    assert "on 2 nodes" in done.stderr
