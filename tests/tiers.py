"""Tiers of tests: every test is in exactly one tier, and tests of `unit` and `conformance` may start no process.

| tier | tests |
| --- | --- |
| `unit` | call functions and start no process; every test without another tier |
| `conformance` | check requirements on every implementation of an interface; start no process |
| `study` | work for seconds in the test's process: run or simulate studies, make a store, build large models |
| `launcher` | start the real command or any other process |
| `slow` | take minutes |
| `fault` | cause a real fault during the run |
| `cluster` | run on simulated machines, which need root on Linux (`tests/cluster`) |

`slow`, `fault` and `cluster` have priority over the other tiers: a `slow` test in a file of `study` tests is not a
`study` test. Otherwise the nearest mark counts, or the tier of a fixture if it is later in the table.
"""

import ast
import multiprocessing.util
import os
import sys
from collections.abc import Callable, Iterator
from functools import wraps
from pathlib import Path
from typing import Any

import pytest

TIERS = ("unit", "conformance", "study", "launcher", "slow", "fault", "cluster")
LENGTHY = ("slow", "fault", "cluster")
WITHOUT_PROCESSES = ("unit", "conformance")
# Tests with these fixtures run a study, or read one that ran for another test.
FIXTURES = {
    "launch": "launcher", "small_study": "launcher", "small_study_run": "launcher",
    "in_process_study": "study", "in_process_study_run": "study",
}  # fmt: skip
ROOT = Path(__file__).parents[1]

# Programs that any test may start, with the reason.
ALLOWED = {
    "git": "`trainables.process.versions` asks once a process which commit runs, in whatever test is first",
}

_SPAWN = "tests.spawn"
# Audit events, and the position of the command among the arguments.
_EVENTS = {
    "subprocess.Popen": 1, "os.exec": 1, "os.posix_spawn": 1, "os.system": 0, "os.fork": None, "os.forkpty": None,
    _SPAWN: 1,
}  # fmt: skip
# Processes started so far, one list for each guarded test and each fixture being set up.
_watches: list[list[str]] = []
# Name and scope of each fixture that started a process, possibly for a test that may start processes.
_starting_fixtures: set[tuple[str, str]] = set()
_STARTED = pytest.StashKey[list[str]]()


def tier_of(item: pytest.Item) -> str:
    """Return the tier of a test: a lengthy one, or else the later of the nearest mark and the fixtures' tiers."""
    marks = [mark.name for mark in item.iter_markers() if mark.name in TIERS]
    lengthy = next((name for name in marks if name in LENGTHY), None)
    by_fixtures = [FIXTURES[name] for name in getattr(item, "fixturenames", ()) if name in FIXTURES]
    return lengthy or max([*marks[:1], *by_fixtures], key=TIERS.index, default="unit")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """Do not import a file without tests of the tiers that `-m` names. Importing all files takes 20 s."""
    wanted = set(config.getoption("markexpr").split(" or "))
    if not wanted <= set(TIERS) or collection_path.suffix != ".py" or not collection_path.name.startswith("test_"):
        return None
    return True if not wanted & _possible_tiers(ast.parse(collection_path.read_text())) else None


def _possible_tiers(module: ast.Module) -> set[str]:
    """Return the tiers that tests of a module may have. Fixtures make some of them launcher or study tests."""
    assigned = [
        node.value for node in module.body
        if isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["pytestmark"]
    ]  # fmt: skip
    of_file = {tier for value in assigned for tier in _marks_in(value)}
    return _marks_in(module) | (set() if of_file else {"unit"}) | set(FIXTURES.values())


def _marks_in(node: ast.AST) -> set[str]:
    attributes = [each for each in ast.walk(node) if isinstance(each, ast.Attribute) and each.attr in TIERS]
    return {each.attr for each in attributes if ast.unparse(each.value) == "pytest.mark"}


@pytest.hookimpl(tryfirst=True)  # before -m selects
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Leave one tier on each test."""
    tiers = [tier_of(item) for item in items]
    for node in {node for item in items for node in item.listchain()}:
        node.own_markers[:] = [mark for mark in node.own_markers if mark.name not in TIERS]
    for item, tier in zip(items, tiers, strict=True):
        item.add_marker(tier)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Watch a guarded test and the fixtures."""
    if not any(item.get_closest_marker(tier) for tier in WITHOUT_PROCESSES):
        return (yield)
    with _Watch() as started:
        item.stash[_STARTED] = started
        return (yield)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Iterator[None]:
    """Fail a guarded test that started a process or uses a fixture that did."""
    result = yield
    _check(item)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown(item: pytest.Item) -> Iterator[None]:
    """Fail a guarded test with fixtures that started a process when they ended."""
    result = yield
    _check(item)
    return result


@pytest.hookimpl(wrapper=True)
def pytest_fixture_setup(fixturedef: pytest.FixtureDef[Any]) -> Iterator[object]:
    """Remember a fixture that starts a process, because later tests that use it start none themselves."""
    with _Watch() as started:
        try:
            return (yield)
        finally:
            if started:
                _starting_fixtures.add((fixturedef.argname, fixturedef.baseid))


class _Watch:
    """Context that collects the processes started meanwhile."""

    def __enter__(self) -> list[str]:
        self._started: list[str] = []
        _watches.append(self._started)
        return self._started

    def __exit__(self, *_: object) -> None:
        _watches[:] = [watch for watch in _watches if watch is not self._started]


def _check(item: pytest.Item) -> None:
    """Fail a guarded test if it or one of its fixtures started a process."""
    started = item.stash.get(_STARTED, None)
    if started is None:
        return
    names = set(getattr(item, "fixturenames", ()))
    fixtures = [name for name, base in _starting_fixtures if name in names and item.nodeid.startswith(base)]
    reasons = [*started, *(f"in its fixture {name}" for name in sorted(fixtures))]
    started.clear()
    if reasons:
        tier = next(tier for tier in WITHOUT_PROCESSES if item.get_closest_marker(tier))
        pytest.fail(f"a {tier} test started a process ({'; '.join(reasons)}): mark it launcher or study", pytrace=False)


def _audit(event: str, arguments: tuple[Any, ...]) -> None:
    """Add a process that is being started to all open watches."""
    if _watches and event in _EVENTS:
        position = _EVENTS[event]
        if position is not None and _program(arguments[position]) in ALLOWED:
            return
        command = event if position is None else f"{event} {arguments[position]!r}"
        for watch in _watches:
            watch.append(f"{command} at {_caller()}")


def _program(command: Any) -> str:
    """Return the program's name of a command given as a list or as text."""
    first = command[0] if isinstance(command, list | tuple) and command else command
    return Path(os.fsdecode(first)).name if isinstance(first, str | bytes | os.PathLike) else ""


def _caller() -> str:
    """Return the innermost line of the project in the stack."""
    frame = sys._getframe(2)
    while frame.f_back is not None:
        path = Path(frame.f_code.co_filename)
        if path.is_relative_to(ROOT) and ".venv" not in path.parts:
            return f"{path.relative_to(ROOT)}:{frame.f_lineno}"
        frame = frame.f_back
    return "an unknown place"


def _audited(spawn: Callable[..., int]) -> Callable[..., int]:
    """Wrap multiprocessing's spawn so that it raises an audit event."""

    @wraps(spawn)
    def audited(path: bytes, arguments: list[bytes], passed: list[int]) -> int:
        sys.audit(_SPAWN, path, arguments, passed)
        return spawn(path, arguments, passed)

    return audited


sys.addaudithook(_audit)
# The only ways to start a process without an audit event: multiprocessing's spawn, and the resource tracker.
multiprocessing.util.spawnv_passfds = _audited(multiprocessing.util.spawnv_passfds)
