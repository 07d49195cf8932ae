"""Run the cells of a notebook in this process, as Jupyter would, without the seconds that a kernel takes to start."""

import ast
from pathlib import Path
from typing import Any

import IPython.display
import jupytext
import pytest
from IPython.display import Markdown
from matplotlib.figure import Figure


def run_cells(script: Path, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Return the outputs of the cells in order: the value of each last expression, and arguments of `display`."""
    shown: list[Any] = []
    monkeypatch.setattr(IPython.display, "display", shown.append)
    namespace: dict[str, Any] = {"__name__": "__main__"}
    for number, cell in enumerate(jupytext.read(script).cells):
        if cell.cell_type != "code":
            continue
        body = ast.parse("\n".join(line for line in cell.source.splitlines() if not line.startswith("%"))).body
        last = body.pop() if body and isinstance(body[-1], ast.Expr) else None
        where = f"{script.name}, cell {number}"
        exec(compile(ast.Module(body, []), where, "exec"), namespace)
        if last is not None:
            assert isinstance(last, ast.Expr)
            value = eval(compile(ast.Expression(last.value), where, "eval"), namespace)
            shown += [] if value is None else [value]
    return shown


def prose(shown: list[Any]) -> str:
    """Return all text in the outputs."""
    return "\n\n".join(each.data for each in shown if isinstance(each, Markdown))


def figures(shown: list[Any]) -> list[Figure]:
    """Return all figures in the outputs."""
    return [each for each in shown if isinstance(each, Figure)]
