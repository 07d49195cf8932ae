"""Mistakes on a command line, each as one line that names the flag as the user typed it."""

import sys
from collections.abc import Sequence
from difflib import get_close_matches
from typing import Any, NoReturn

import typer

_USAGE = 2


def run_app(app: typer.Typer, program: str | None = None) -> NoReturn:
    """Run a command with the arguments of this process, then exit. A mistake is printed as one line.

    Args:
        app: the command.
        program: name of the program in help texts. By default, the one that the user typed.

    Raises:
        SystemExit: the command has ended, or was used wrongly.
    """
    try:
        code = app(standalone_mode=False, **({} if program is None else {"prog_name": program}))
    except typer.TyperException as error:
        typer.echo(f"error: {describe_mistake(error, sys.argv[1:])}", err=True)
        sys.exit(_USAGE)
    except typer.Abort:
        typer.echo("error: aborted", err=True)
        sys.exit(1)
    sys.exit(code if isinstance(code, int) else 0)


def describe_mistake(error: Any, typed: Sequence[str]) -> str:
    """Return a mistake in one line.

    Args:
        error: an error of Typer.
        typed: arguments of the command line.
    """
    parameter, wrong = getattr(error, "param", None), getattr(error, "option_name", None)
    message = _plain(error.message or error.format_message())
    if wrong is not None and message.startswith(("No such option", "no such option")):
        known = _flags(getattr(error, "ctx", None))
        near = get_close_matches(wrong, error.possibilities or known, n=1, cutoff=0.5)
        return f"{wrong}: there is no such option" + (f"; did you mean {near[0]}?" if near else "") + _help_of(error)
    if wrong is not None:
        return f"{_as_typed([wrong], typed)}: {_without_name(message, wrong)}"
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
    """Return the value that the user gave to an option, for the end of a message."""
    for word, following in zip(typed, [*typed[1:], ""], strict=True):
        flag, separator, value = word.partition("=")
        if flag in names:
            return f" (given: {(value if separator else following)!r})"
    return ""


def _as_typed(names: Sequence[str], typed: Sequence[str]) -> str:
    """Return the spelling of an option that the user typed, or the first one, such as for an environment variable."""
    return next((word for each in typed if (word := each.partition("=")[0]) in names), names[0])


def _without_name(message: str, name: str) -> str:
    rest = message.removeprefix(f"Option '{name}' ").removeprefix(f"Option {name!r} ")
    return rest[:1].lower() + rest[1:]


def _flags(context: Any) -> list[str]:
    if context is None:
        return []
    return [flag for each in context.command.params for flag in each.opts if flag.startswith("--")]


def _help_of(error: Any) -> str:
    context = getattr(error, "ctx", None)
    return "" if context is None else f" (see {context.command_path} -h)"
