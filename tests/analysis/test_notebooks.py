"""The notebooks run from top to bottom, and each pair of files says the same."""

from pathlib import Path

import jupytext
import nbformat
import pytest
from nbclient import NotebookClient

import analysis
from tests.analysis.synthetic import whole_study, write_records

NOTEBOOKS = Path(analysis.__file__).parent / "notebooks"
FIRST_LOOK = NOTEBOOKS / "01_first_look.ipynb"


def executed(
    path: Path, study: Path, working_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> nbformat.NotebookNode:
    monkeypatch.setenv("PESFKD_STUDY", str(study))
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parents[1]))
    # A user's own matplotlibrc, or a display that is not there, must not matter.
    monkeypatch.delenv("MPLBACKEND", raising=False)
    notebook = nbformat.read(path, as_version=4)
    resources = {"metadata": {"path": str(working_directory)}}
    NotebookClient(notebook, timeout=120, kernel_name="python3", resources=resources).execute()
    return notebook


def shown(notebook: nbformat.NotebookNode, mime: str) -> list[str]:
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return [output["data"][mime] for output in outputs if mime in output.get("data", {})]


def test_the_first_look_shows_a_real_study(small_study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notebook = executed(FIRST_LOOK, small_study, tmp_path, monkeypatch)
    assert len(shown(notebook, "image/png")) == 4
    assert any(small_study.name in text for text in shown(notebook, "text/markdown"))


def test_the_first_look_shows_four_figures_the_table_and_the_correlation(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_records(tmp_path / "invented", *whole_study())
    notebook = executed(FIRST_LOOK, tmp_path / "invented", tmp_path, monkeypatch)
    assert len(shown(notebook, "image/png")) == 4
    opening, table, correlation = shown(notebook, "text/markdown")
    assert "**invented**" in opening
    assert "49 trials recorded, 24 of them in the search" in opening
    assert "| kd (config-kd) |" in table
    assert "exploratory: -0." in correlation


def test_a_notebook_is_its_script_and_holds_no_output() -> None:
    script, notebook = jupytext.read(FIRST_LOOK.with_suffix(".py")), nbformat.read(FIRST_LOOK, as_version=4)
    sources = [[(cell.cell_type, cell.source) for cell in book.cells] for book in (script, notebook)]
    assert sources[0] == sources[1]
    assert not any(cell.get("outputs") for cell in notebook.cells)
