"""What the tests of the package share."""

import os
import re
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch

import pesfkd
from tests.pesfkd.process_state import process_state

ROOT = Path(__file__).parents[2]
TINY = {
    "space": "adapter_width", "trials": 2, "promising": 1, "replicates": 2, "epochs": 2, "executor": "in-process",
}  # fmt: skip
BLOCKS = re.findall(
    r"```python\n(.*?)```", (ROOT / "docs" / "how_to" / "python.md").read_text(encoding="utf-8"), flags=re.DOTALL
)


class Ran(NamedTuple):
    """A study that ran in this process, the state of the process before and after, and the threads that it left."""

    study: pesfkd.Study
    before: dict[str, Any]
    after: dict[str, Any]
    threads: list[str]


@pytest.fixture(autouse=True)
def with_tables(request: pytest.FixtureRequest) -> Iterator[None]:
    """Make MLflow's tables once, for tests that run a study."""
    if request.node.get_closest_marker("study") is None:
        yield
        return
    with request.getfixturevalue("tables_made_once")():
        yield


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One output folder: its studies share a teacher and an MLflow store."""
    return tmp_path_factory.mktemp("pesfkd")


@pytest.fixture(scope="session")
def ran_in_process(folder: Path, tables_made_once: Any) -> Ran:
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    running, before = set(threading.enumerate()), process_state()
    with tables_made_once():
        study = pesfkd.run(**TINY, name="ran", output_dir=folder, quiet=True)
    after, left = process_state(), [each.name for each in threading.enumerate() if each not in running]
    torch.set_num_threads(threads)
    return Ran(study, before, after, left)


@pytest.fixture(scope="session")
def ran(ran_in_process: Ran) -> pesfkd.Study:
    return ran_in_process.study


@pytest.fixture(scope="session")
def documented(tmp_path_factory: pytest.TempPathFactory, tables_made_once: Any) -> dict[str, Any]:
    """The names that the blocks of docs/how_to/python.md define, run in their order in a folder of their own."""
    names: dict[str, Any] = {"folder": tmp_path_factory.mktemp("document")}
    before = Path.cwd()
    os.chdir(names["folder"])
    try:
        with tables_made_once():
            for block in BLOCKS:
                exec(block, names)
    finally:
        os.chdir(before)
    return names
