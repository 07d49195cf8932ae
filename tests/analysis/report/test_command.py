"""`python -m analysis.report`: fast help, clear errors, and the exit codes of all commands."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from analysis.reading.trials import EXAMPLE, EXAMPLES
from analysis.report.__main__ import main
from tests.analysis.report.studies import PLAN, write_study
from tests.analysis.synthetic import epochs_table, trial, trials_table


@pytest.fixture
def report(monkeypatch, capsys):
    """Return a function that runs the command in this process and returns exit code, stdout and stderr."""

    def run(*arguments: str | Path) -> tuple[object, str, str]:
        monkeypatch.setattr(sys, "argv", ["", *map(str, arguments)])
        code: object = 0
        try:
            main()
        except SystemExit as leaving:
            code = leaving.code or 0
        said = capsys.readouterr()
        return code, said.out, said.err

    return run


def test_help_answers_without_heavy_imports(launch):
    done = launch("--help", module="analysis.report", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert "python -m analysis.report NAME" in done.stdout
    imported = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines() if line.startswith("import time:")}
    heavy = {
        "torch",
        "ray",
        "mlflow",
        "optuna",
        "pyarrow",
        "pandas",
        "scipy",
        "numpy",
        "matplotlib",
        "plotly",
        "jinja2",
    }
    assert "typer" in imported
    assert not imported & heavy


@pytest.mark.launcher
def test_a_report_needs_neither_torch_nor_ray_nor_mlflow(tmp_path):
    names = ["torch", "ray", "mlflow", "matplotlib.pyplot"]
    program = (
        f"import sys; from pathlib import Path; from analysis.report.writing import write_report\n"
        f"print(write_report(Path({str(EXAMPLE)!r}), Path({str(tmp_path / 'page.html')!r})))\n"
        f"print([name for name in {names} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(tmp_path / "page.html"), "[]"]


@pytest.mark.launcher
def test_the_command_imports_neither_pandas_nor_optuna_for_a_comparison_and_pandas_stays_importable(tmp_path):
    program = (
        "import sys; from analysis.report.__main__ import report; from pathlib import Path\n"
        f"report('fashion-method', Path({str(EXAMPLES)!r}), Path({str(tmp_path / 'p.html')!r}), False)\n"
        "print([name for name in ('pandas', 'optuna', 'sklearn') if name in sys.modules])\n"
        "import pandas"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [str(tmp_path / "p.html"), "[]"]


def test_the_page_lies_in_the_studys_folder_if_nothing_else_is_said(report, tmp_path):
    write_study(tmp_path / "s", trials_table([trial(0, **{"val/accuracy": 0.5})]), epochs_table([]), plan=PLAN)
    code, said, _ = report("s", "--output-dir", tmp_path)
    assert code == 0
    assert said.strip() == str(tmp_path / "s" / "report.html")
    assert (tmp_path / "s" / "report.html").read_text().startswith("<!DOCTYPE html>")


def test_a_study_that_is_not_there_is_refused_with_those_that_are(report, tmp_path):
    write_study(tmp_path / "widths", trials_table([]), epochs_table([]))
    code, _, said = report("width", "--output-dir", tmp_path)
    assert code == 2
    assert re.search(r"no study 'width' under .*, did you mean widths; studies there: widths", said)


def test_an_empty_output_folder_says_what_to_give(report, tmp_path):
    code, _, said = report("s", "--output-dir", tmp_path / "nowhere")
    assert code == 2
    assert "give the folder of the studies with --output-dir" in said


def test_a_folder_that_is_no_study_is_refused(report, tmp_path):
    (tmp_path / "teachers").mkdir()
    code, _, said = report("teachers", "--output-dir", tmp_path)
    assert code == 2
    assert "is not a study folder: it has neither plan.json nor records/" in said


def test_a_place_that_cannot_hold_a_file_is_refused(report, tmp_path):
    write_study(tmp_path / "s", trials_table([]), epochs_table([]))
    code, _, said = report("s", "--output-dir", tmp_path, "--out", tmp_path / "none" / "page.html")
    assert code == 2
    assert "name a file in an existing folder" in said
    os.mkfifo(tmp_path / "pipe")
    code, _, said = report("s", "--output-dir", tmp_path, "--out", tmp_path / "pipe")
    assert (code, (tmp_path / "pipe").is_fifo()) == (2, True), said


@pytest.mark.parametrize(
    "name",
    ["journal.jsonl", "plan.json", "summary.json", "Journal.JSONL", "link.html", "x.parquet", "x.parquet.sha256"],
)
def test_a_report_is_not_written_over_what_a_study_keeps(report, tmp_path, name):
    write_study(tmp_path / "s", trials_table([]), epochs_table([]))
    (tmp_path / "s" / "journal.jsonl").write_text("kept")
    (tmp_path / "s" / "link.html").symlink_to("journal.jsonl")
    code, _, said = report("s", "--output-dir", tmp_path, "--out", tmp_path / "s" / name)
    assert code == 2
    assert "this file belongs to the study" in said
    assert (tmp_path / "s" / "journal.jsonl").read_text() == "kept"


@pytest.mark.parametrize("name", ["plan.json", "summary.json"])
@pytest.mark.parametrize("content", ["{", "[]"])
def test_a_damaged_file_is_an_error_that_names_it(report, tmp_path, name, content):
    write_study(tmp_path / "s", trials_table([]), epochs_table([]))
    (tmp_path / "s" / name).write_text(content)
    code, _, said = report("s", "--output-dir", tmp_path)
    assert code == 1
    assert name in said
    assert "restore it from a copy" in said
    assert not (tmp_path / "s" / "report.html").exists()


def test_damaged_records_are_an_error_that_names_the_file(report, tmp_path):
    write_study(tmp_path / "s", trials_table([trial(0)]), epochs_table([]))
    (tmp_path / "s" / "records" / "trials" / "segment-0.parquet").write_bytes(b"PAR1 and no more")
    code, _, said = report("s", "--output-dir", tmp_path)
    assert code == 1
    assert "segment-0.parquet is damaged" in said
