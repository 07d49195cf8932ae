"""Command-line mistakes as one line each, with the flag as typed by the user, and warnings in one line."""

import re
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any, Final, NoReturn

import typer

from trainables.process.errors import ExitCode

# Folder with the project's packages: their warnings say everything, and need no place in a file.
_OWN: Final = Path(__file__).resolve().parents[2]
_PACKAGES: Final = ("trainables", "study", "analysis", "search_spaces", "pesfkd")


def run_app(app: typer.Typer, program: str | None = None) -> NoReturn:
    """Run a command with this process's arguments, then exit. A mistake is printed as one line.

    Args:
        app: the command.
        program: program name in help texts. By default, the name typed by the user.

    Raises:
        SystemExit: the command has ended, or was used wrongly.
    """
    try:
        with warnings_in_one_line():
            code = app(standalone_mode=False, **({} if program is None else {"prog_name": program}))
    except typer.TyperException as error:
        typer.echo(f"error: {describe_mistake(error, sys.argv[1:])}", err=True)
        sys.exit(ExitCode.USAGE)
    except typer.Abort:
        typer.echo("error: aborted", err=True)
        sys.exit(ExitCode.ERROR)
    sys.exit(code if isinstance(code, int) else 0)


@contextmanager
def warnings_in_one_line() -> Iterator[None]:
    """Show Python's warnings as `warning: MESSAGE`, and other packages' warnings with kind and place in their code."""
    earlier = warnings.formatwarning

    def formatted(message: Any, category: type[Warning], filename: str, lineno: int, *_: Any) -> str:
        text = " ".join(str(message).split())
        return (
            f"warning: {text}\n"
            if _is_own(filename)
            else f"warning: {text} ({category.__name__}, {filename}:{lineno})\n"
        )

    warnings.formatwarning = formatted  # type: ignore[assignment]
    try:
        yield
    finally:
        warnings.formatwarning = earlier


def _is_own(filename: str) -> bool:
    path = Path(filename)
    return path.is_relative_to(_OWN) and path.relative_to(_OWN).parts[0] in _PACKAGES


def describe_mistake(error: Any, typed: Sequence[str]) -> str:
    """Return a mistake in one line.

    Args:
        error: a Typer error.
        typed: command-line arguments.
    """
    parameter, wrong = getattr(error, "param", None), getattr(error, "option_name", None)
    message = _plain(error.message or error.format_message())
    if wrong is not None and message.startswith(("No such option", "no such option")):
        known = _flags(getattr(error, "ctx", None))
        near = get_close_matches(wrong, error.possibilities or known, n=1, cutoff=0.5)
        return f"{wrong}: there is no such option" + (f"; did you mean {near[0]}?" if near else "") + _help_of(error)
    if wrong is not None:
        return f"{_as_typed([wrong], typed)}: {_without_name(message, wrong)}"
    if parameter is None and (command := re.match("No such command '([^']*)'", message)):
        return _unknown_command(command[1], getattr(error, "ctx", None))
    if parameter is None:
        return message[:1].lower() + message[1:]
    names = [*parameter.opts, *parameter.secondary_opts]
    if parameter.param_type_name != "option":
        names = [parameter.metavar or str(parameter.name).upper()]
    if type(error).__name__ == "MissingParameter":
        return f"{names[0]} is missing{_help_of(error)}"
    return f"{_as_typed(names, typed)}: {message}{_given(names, typed)}"


def _plain(message: str) -> str:
    return " ".join(message.split()).removeprefix("Value error, ").rstrip(".")


def _given(names: Sequence[str], typed: Sequence[str]) -> str:
    """Return the user's value of an option, for the end of a message."""
    for word, following in zip(typed, [*typed[1:], ""], strict=True):
        flag, separator, value = word.partition("=")
        if flag in names:
            return f" (given: {(value if separator else following)!r})"
    return ""


def _as_typed(names: Sequence[str], typed: Sequence[str]) -> str:
    """Return an option's spelling as typed by the user, or the first spelling, such as for an environment variable."""
    return next((word for each in typed if (word := each.partition("=")[0]) in names), names[0])


def _without_name(message: str, name: str) -> str:
    rest = message.removeprefix(f"Option '{name}' ").removeprefix(f"Option {name!r} ")
    return rest[:1].lower() + rest[1:]


def _unknown_command(name: str, context: Any) -> str:
    known = [] if context is None else list(context.command.list_commands(context))
    near = get_close_matches(name, known, n=1, cutoff=0.5)
    meant = f"; did you mean {near[0]}?" if near else ""
    return f"{name}: there is no such command{meant}" + ("" if context is None else f" (see {context.command_path} -h)")


def _flags(context: Any) -> list[str]:
    if context is None:
        return []
    return [flag for each in context.command.params for flag in each.opts if flag.startswith("--")]


def _help_of(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return "" if context is None else f" (see {context.command_path} -h)"
