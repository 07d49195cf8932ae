"""Structure of the packages: import contracts, no import cycles, few top-level modules, a description of each."""

import ast
import logging.config
import re
import sys
from pathlib import Path

import grimp
import pytest
from importlinter.cli import EXIT_STATUS_SUCCESS, lint_imports

ROOT = Path(__file__).parents[1]
PACKAGES = ("analysis", "pesfkd", "search_spaces", "study", "trainables")
# Public top-level names. The code lies in a subpackage.
SHORT_NAMES = {"trainables": {"adapter", "sharpness", "student_file"}, "analysis": {"pooling"}}
COMMANDS = {"launch", "confirm", "sync", "rerun", "export", "power", "check"}


def loose_modules(package: str) -> set[str]:
    return {path.stem for path in (ROOT / package).glob("*.py")} - {"__init__"}


def cycles(graph: grimp.ImportGraph) -> list[list[str]]:
    """Return groups of modules that import each other, directly or indirectly."""
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    stack: list[str] = []
    found: list[list[str]] = []

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        stack.append(module)
        for imported in sorted(graph.find_modules_directly_imported_by(module)):
            if imported not in order:
                visit(imported)
                lowest[module] = min(lowest[module], lowest[imported])
            elif imported in stack:
                lowest[module] = min(lowest[module], order[imported])
        if lowest[module] == order[module]:
            component = stack[stack.index(module) :]
            del stack[stack.index(module) :]
            if len(component) > 1:
                found.append(sorted(component))

    for module in sorted(graph.modules):
        if module not in order:
            visit(module)
    return found


def test_no_module_imports_itself_through_others_lazily_or_for_types_alone():
    assert cycles(grimp.build_graph(*PACKAGES, cache_dir=None)) == []


def test_a_cycle_would_be_found():
    graph = grimp.ImportGraph()
    for importer, imported in (("a", "b"), ("b", "c"), ("c", "b"), ("c", "d")):
        graph.add_import(importer=importer, imported=imported)
    assert cycles(graph) == [["b", "c"]]


def test_the_import_contracts_are_kept(monkeypatch, capsys):
    monkeypatch.chdir(ROOT)
    monkeypatch.setattr(sys, "path", [*sys.path])  # the linter adds the folder
    monkeypatch.setattr(logging.config, "dictConfig", lambda settings: None)  # the linter would silence our loggers
    assert lint_imports(no_cache=True) == EXIT_STATUS_SUCCESS, capsys.readouterr().out


@pytest.mark.parametrize(
    ("package", "allowed"),
    [*SHORT_NAMES.items(), ("study", COMMANDS | {"records"})],
)
def test_outside_the_rooms_there_are_only_names_that_others_rely_on(package, allowed):
    assert loose_modules(package) == allowed


@pytest.mark.parametrize(
    "init", sorted(path for name in PACKAGES for path in (ROOT / name).rglob("__init__.py")), ids=str
)
def test_every_package_says_its_purpose_in_a_line(init):
    purpose = ast.get_docstring(ast.parse(init.read_text(encoding="utf-8")))
    assert purpose is not None
    assert "\n" not in purpose


def test_no_test_module_imports_from_another():
    borrowed = [
        f"{path.relative_to(ROOT)}: {line}"
        for path in sorted((ROOT / "tests").rglob("*.py"))
        for line in re.findall(r"^ *from tests\S*\.test_\w+ import .*", path.read_text(encoding="utf-8"), re.MULTILINE)
    ]
    assert borrowed == []
