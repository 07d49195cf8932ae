"""Command line of the report: `python -m analysis.report NAME`."""

import sys
from importlib.abc import MetaPathFinder
from pathlib import Path
from typing import Annotated, Final

import typer

from trainables.process.command_errors import run_app
from trainables.process.errors import ExitCode, StudyError, UsageError
from trainables.process.standard_streams import prepare_standard_streams

_KEPT: Final = ("plan.json", "journal.jsonl", "summary.json")  # inputs to a report, never overwritten by it
_KEPT_SUFFIXES: Final = (".parquet", ".sha256")  # the records, and their digests
app = typer.Typer(add_completion=False, rich_markup_mode="rich", pretty_exceptions_enable=False)


@app.command(
    epilog="Example:\n\n[bold]python -m analysis.report NAME[/bold]  (writes study_results/NAME/report.html)",
    context_settings={"help_option_names": ["-h", "--help"]},
)
def report(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A study.", show_default=False)],
    output_dir: Annotated[Path, typer.Option(help="Folder of the studies.")] = Path("study_results"),
    out: Annotated[
        Path | None,
        typer.Option(metavar="FILE", help="Path of the report; report.html in the study folder if not given."),
    ] = None,
    thorough: Annotated[
        bool, typer.Option("--thorough", help="Add importances by fANOVA, with all draws (a minute or more).")
    ] = False,
) -> None:
    """Write the results of a study as one HTML file for offline reading, phones and print.

    The file contains question, answer with intervals, tables, figures, warnings, plan, and the command to run the
    study again, if the study has them. Nothing in the study is changed. Exit codes: 0 done, 1 error, 2 wrong usage.
    """
    check_out(out)  # reading and drawing modules are imported later, so help and usage errors appear at once
    _hide_pandas_from_pyarrow()
    from analysis.report.folder import find_folder
    from analysis.report.writing import write_report

    typer.echo(write_report(find_folder(name, output_dir), out, thorough=thorough))


def _hide_pandas_from_pyarrow() -> None:
    """Make pyarrow work without pandas, as if it was not installed.

    To convert its first list, pyarrow imports pandas if there is one, which takes a sixth of the time of a report. No
    report uses pandas. Other libraries can still import it.
    """
    import pyarrow as pa

    without = _WithoutPandas()
    sys.meta_path.insert(0, without)
    pa.array([0])  # pyarrow tries the import once, and keeps the answer
    sys.meta_path.remove(without)


class _WithoutPandas(MetaPathFinder):
    """Finder of modules that knows no pandas, and leaves all other modules to the next finder."""

    def find_spec(self, fullname: str, path: object, target: object = None) -> None:  # noqa: ARG002
        if fullname == "pandas":
            raise ModuleNotFoundError("hidden from pyarrow", name=fullname)


def check_out(out: Path | None) -> None:
    """Check that a report may be written to a file.

    Raises:
        UsageError: writing would replace a folder, a device or a study file, or the folder does not exist.
    """
    if out is not None and ((out.exists() and not out.is_file()) or not out.absolute().parent.is_dir()):
        raise UsageError(f"--out {out}: name a file in an existing folder")
    if out is not None and (out.resolve().name.casefold() in _KEPT or out.resolve().suffix in _KEPT_SUFFIXES):
        raise UsageError(f"--out {out}: this file belongs to the study; name another file, such as report.html")


def main() -> None:
    """Run the command line, then exit with the command's code."""
    prepare_standard_streams()
    try:
        run_app(app, "python -m analysis.report")
    except (UsageError, StudyError, OSError) as error:
        typer.echo(f"error: {error}", err=True)
        sys.exit(ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.ERROR)


if __name__ == "__main__":
    main()
