"""Shared parts of the study commands: exit codes, and a stdout reserved for results."""

import os
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TextIO

import typer

from trainables.process.command_errors import run_app
from trainables.process.errors import ClusterLostError, ExitCode, StudyError, UsageError, leave_at_once
from trainables.process.standard_streams import prepare_standard_streams
from trainables.storage.uris import redact_tracebacks


def leave_with_exit_code(app: typer.Typer, program: str | None = None) -> None:
    """Run a command, then exit. If the command fails, print the error in one line and exit with the matching code.

    Args:
        app: the command.
        program: program name in help texts. By default, the name typed by the user.
    """
    prepare_standard_streams()
    redact_tracebacks()
    verbose = any(argument in ("-v", "--verbose") for argument in sys.argv[1:])
    try:
        run_app(app, program)
    except ClusterLostError as error:
        leave_at_once(str(error))
    except (UsageError, StudyError) as error:
        if verbose:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(ExitCode.USAGE if isinstance(error, UsageError) else ExitCode.ERROR)
    except OSError as error:  # for example a full disk or a deleted folder
        if verbose:
            raise
        typer.echo(f"error: {error}", err=True)
        sys.exit(ExitCode.ERROR)


@contextmanager
def stdout_for_results_only(*, verbose: bool) -> Iterator[TextIO]:
    """Yield the real stdout. Other writes to descriptor 1, for example by Ray, go to stderr or are discarded."""
    sys.stdout.flush()
    real = os.dup(1)
    with open(os.devnull, "wb") as nowhere:  # noqa: PTH123
        os.dup2(2 if verbose else nowhere.fileno(), 1)
    try:
        with os.fdopen(os.dup(real), "w", encoding="utf-8", errors="backslashreplace") as stdout:
            yield stdout
    finally:
        sys.stdout.flush()
        os.dup2(real, 1)
        os.close(real)


def command_line(module: str) -> str:
    """Return the command typed by the user, without secrets in URIs.

    Args:
        module: module run by the user, unless the user ran the program `pesfkd`.
    """
    from trainables.storage.uris import redact_command

    program = ["pesfkd"] if Path(sys.argv[0]).name == "pesfkd" else ["python", "-m", module]
    return redact_command([*program, *sys.argv[1:]])


def given_options(context: typer.Context) -> dict[str, Any]:
    """Return the options given by the user, by name."""
    sources = ((flag, value, context.get_parameter_source(flag)) for flag, value in context.params.items())
    return {flag: value for flag, value, source in sources if source is not None and source.name != "DEFAULT"}


def options_with_config(context: typer.Context, values: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of all command options, and the options given by the user, with those from `--config`."""
    given = given_options(context)
    if values.get("config") is None:
        return dict(values), given
    from study.cli.configured import with_config

    sources = {name: context.get_parameter_source(name) for name in given}
    environment = {name for name, source in sources.items() if source is not None and source.name == "ENVIRONMENT"}
    return with_config(values, given, from_environment=environment)


def epilog_of(examples: Iterable[tuple[str, str]]) -> str:
    """Return the examples section of a command's help, built from descriptions and commands."""
    return "Examples:\n\n" + "\n\n".join(
        f"[bold]{command}[/bold]  ({description})" for description, command in examples
    )
