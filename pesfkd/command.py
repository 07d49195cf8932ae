"""Command line `pesfkd`: one program for all operations on studies.

As in `study.launch`, slow imports happen only after the arguments are checked.
"""

import inspect
import json
import shlex
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from analysis.report.__main__ import report
from pesfkd.brief_help import BriefGroup, brief, show_all_options
from pesfkd.listing import list_studies
from study.check import check_code
from study.cli.app import leave_with_exit_code, options_with_config
from study.cli.options import StudyName, with_options
from study.confirm import confirm_study
from study.export import export
from study.launch import start
from study.plan.options import OPTIONS
from study.power import power_of_study
from study.rerun import rerun
from study.sync import sync
from trainables.process.environment import restart_as_worker
from trainables.process.errors import StudyError, UsageError
from trainables.teacher.command import is_own_error, teacher

_EXAMPLES: Final = (
    ("a minute on two cores", "pesfkd run --space adapter_width"),
    ("the best configs on fresh seeds", "pesfkd confirm NAME"),
    ("the report in a browser", "pesfkd open NAME"),
)
# Options shown in the short help for a new study.
COMMON: Final = (
    "space", "method", "dataset", "student", "teacher", "trials", "epochs", "confirm", "executor", "dry_run",
)  # fmt: skip
_ONLY_RESUMED: Final = ("resume", "retry_failed", "set_aside_records")
_ONLY_NEW: Final = ("resume", "smoke", "list_spaces", "version", "name")
# Options shown for resuming or confirming a study.
_COMMON_LATER: Final = (
    "confirm", "seeds", "executor", "max_concurrent", "time_budget", "retry_failed", "output_dir", "dry_run", "quiet",
)  # fmt: skip
_COMMON_TEACHER: Final = (
    "dataset", "model", "data_root", "download", "recipe", "epochs", "device", "seed", "output_dir", "dry_run",
)  # fmt: skip


class _Group(BriefGroup):
    examples = _EXAMPLES


app = typer.Typer(
    cls=_Group,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
    invoke_without_command=True,
)


def _add(
    name: str,
    command: Callable[..., None],
    purpose: str,
    examples: Sequence[tuple[str, str]],
    common: tuple[str, ...] = (),
) -> None:
    """Add a command, with `--help-all`, under a name.

    Args:
        name: command name.
        command: function with Typer's parameters.
        purpose: first help line.
        examples: description and command of each example.
        common: option names in the short help.
    """
    own = inspect.signature(command, eval_str=True)
    text = inspect.cleandoc(command.__doc__ or "")

    def run(**values: Any) -> None:
        values.pop("help_all")
        command(**values)

    help_all = typer.Option("--help-all", is_eager=True, callback=show_all_options, help="Show all options.")
    added = inspect.Parameter(
        "help_all", inspect.Parameter.KEYWORD_ONLY, default=False, annotation=Annotated[bool, help_all]
    )
    keywords = [each.replace(kind=inspect.Parameter.KEYWORD_ONLY) for each in own.parameters.values()]
    run.__signature__ = inspect.Signature([*keywords, added])  # type: ignore[attr-defined]  # Typer reads it
    app.command(
        name,
        cls=brief(purpose, tuple(examples), common),
        help=text,
        short_help=purpose,
        epilog="Examples:\n\n" + "\n\n".join(f"[bold]{line}[/bold]  ({what})" for what, line in examples),
        context_settings={"help_option_names": ["-h", "--help"]},
    )(run)


@with_options([name for name in OPTIONS if name not in _ONLY_RESUMED])
def _run(context: typer.Context, **values: Any) -> None:
    """Start a study.

    It proposes configs, trains each once, repeats the most promising ones and two controls (cross-entropy, plain KD) on
    fresh seeds, and prints a table of means and intervals. Exit codes: 0 done, 1 error, 2 wrong usage, 3 done but
    trials failed or MLflow did not receive everything, 4 not done within --time-budget, 130 interrupted.
    """
    values, given = options_with_config(context, values)
    start({name: option.default for name, option in OPTIONS.items()} | values, given)


@with_options([name for name in OPTIONS if name not in _ONLY_NEW])
def _resume(context: typer.Context, name: StudyName, **values: Any) -> None:
    """Run what is left of a study. Options of the execution may change. Exit codes: as for run."""
    values, given = options_with_config(context, values)
    own = {"name": None, "resume": name}
    defaults = {each: option.default for each, option in OPTIONS.items()}
    start(defaults | values | own, {each: value for each, value in given.items() if each != "name"} | {"resume": name})


@with_options(("output_dir", "as_json"))
def _list(**values: Any) -> None:
    """Read the studies' files in the output folder."""
    studies = list_studies(values["output_dir"])
    if values["as_json"]:
        typer.echo(json.dumps(studies, indent=2))
        return
    if not studies:
        typer.echo(f"there is no study in {values['output_dir']}")
    rows = [["name", "space", "dataset", "trials", "state", "best"], *map(_cells, studies)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    for row in rows if studies else []:
        typer.echo("  ".join(f"{cell:{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _cells(facts: dict[str, Any]) -> list[str]:
    trials = "" if facts["planned"] is None else f"{facts['trials']}/{facts['planned']}"
    state = {None: "no result yet", True: "complete", False: "incomplete"}[facts["complete"]]
    score = "" if facts["score"] is None else f"{facts['score']:.4f}"
    return [facts["name"], facts["space"] or "", facts["dataset"] or "", trials, state, score]


@with_options(("output_dir",))
def _open(
    name: StudyName,
    mlflow: Annotated[
        bool, typer.Option("--mlflow", help="Open the study's trials in MLflow instead, whose server has to run.")
    ] = False,
    print_only: Annotated[bool, typer.Option("--print", help="Print the path or address, and open nothing.")] = False,
    **values: Any,
) -> None:
    """Open a study's report in a browser, and print its path. It is written if it is missing."""
    from analysis.report.folder import find_folder

    directory = find_folder(name, values["output_dir"])
    place, shown = _mlflow_page(directory) if mlflow else _report_of(directory)
    typer.echo(shown)
    if not print_only and not _opened(place):
        typer.echo("no browser was found on this machine: open it by hand", err=True)


def _opened(place: str) -> bool:
    import webbrowser

    return webbrowser.open(place)


def _report_of(directory: Path) -> tuple[str, str]:
    path = directory / "report.html"
    if not path.is_file():
        from analysis.report.writing import write_report

        write_report(directory)
    return path.absolute().as_uri(), str(path)


def _mlflow_page(directory: Path) -> tuple[str, str]:
    """Return the address of a study's trials, and a text with address and command for starting MLflow's UI."""
    try:
        summary = json.loads((directory / "summary.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        summary = {}
    address, ui = summary.get("runs"), summary.get("ui")
    if not address:
        raise UsageError(
            f"the address of study {directory.name!r} in MLflow is not known: no run of it has ended by this version. "
            f"Deliver it with: {shlex.join(['pesfkd', 'sync', directory.name])}"
        )
    is_server = str(ui).startswith("http")
    return address, address if is_server else f"{address}\n(with the server that this starts: {ui})"


def _rerun(**values: Any) -> None:
    restart_as_worker()
    rerun(**values)


def _teacher(**values: Any) -> None:
    try:
        teacher(**values)
    except (ValueError, RuntimeError) as error:
        if isinstance(error, UsageError | StudyError) or not is_own_error(error):
            raise
        raise StudyError(str(error)) from error


for _wrapper, _wrapped in ((_rerun, rerun), (_teacher, teacher)):
    _wrapper.__doc__ = _wrapped.__doc__
    _wrapper.__signature__ = inspect.signature(_wrapped, eval_str=True)  # type: ignore[attr-defined]

_add("run", _run, "Start a study: search, repeat the best, compare with controls.", (
    ("a minute on two cores", "pesfkd run --space adapter_width"),
    ("plan and cost alone", "pesfkd run --space joint --trials 60 --dry-run"),
    ("compare methods", "pesfkd run --space method --methods ce,kd,dkd"),
), COMMON)  # fmt: skip
_add("resume", _resume, "Run what is left of a study.", (
    ("continue a study", "pesfkd resume NAME"),
    ("and run failed trials again", "pesfkd resume NAME --retry-failed"),
), _COMMON_LATER)  # fmt: skip
_add("confirm", confirm_study, "Train the best configs on fresh seeds; compare on the test split.", (
    ("what it would run", "pesfkd confirm NAME --dry-run"),
    ("three configs, ten seeds", "pesfkd confirm NAME"),
    ("quick", "pesfkd confirm NAME --confirm 1 --seeds 5"),
), _COMMON_LATER)  # fmt: skip
_add("report", report, "Write the results as one HTML file.", (("into the study's folder", "pesfkd report NAME"),))
_add("power", power_of_study, "Say how many seeds a difference needs.", (
    ("half a point of accuracy", "pesfkd power NAME --detect 0.005"),
))  # fmt: skip
_add("export", export, "Export the confirmed student as a program.", (
    ("ONNX", "pesfkd export NAME --out student.onnx"),
    ("int8, unless that loses a point", "pesfkd export NAME --int8 --max-drop 0.01"),
))  # fmt: skip
_add("rerun", _rerun, "Run a recorded trial again and compare all bits.", (("one trial", "pesfkd rerun NAME-0007"),))
_add("sync", sync, "Deliver what MLflow lacks of a study.", (
    ("after an outage", "pesfkd sync NAME"),
    ("to another server", "pesfkd sync NAME --tracking-uri http://127.0.0.1:5000"),
))  # fmt: skip
_add("teacher", _teacher, "Train a teacher.", (
    ("seconds", "pesfkd teacher --dataset digits --model cnn_32_64 --recipe short"),
), _COMMON_TEACHER)  # fmt: skip
_add("list", _list, "List the studies of a folder.", (("in study_results", "pesfkd list"),))
_add("open", _open, "Open a study's report, or its trials in MLflow.", (
    ("report", "pesfkd open NAME"),
    ("MLflow", "pesfkd open NAME --mlflow"),
))  # fmt: skip
_add("check", check_code, "Check a method or a network of your own.", (
    ("a method in a file", "pesfkd check my_method.py:METHOD"),
))  # fmt: skip


@app.callback(help="Which teacher adapter makes the best student, and why: distillation studies.")
def _root(
    context: typer.Context,
    version: Annotated[bool, typer.Option("--version", help="Show the version.")] = False,
) -> None:
    if version:
        from study import __version__

        typer.echo(f"pesfkd {__version__}")
    elif context.invoked_subcommand is None:
        typer.echo(context.get_help())


def main() -> None:
    """Run the command line, then exit with the command's exit code."""
    leave_with_exit_code(app, "pesfkd")
