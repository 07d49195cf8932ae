"""Typer parameters for the study commands, made from the option table."""

import inspect
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Any, Final, TypeVar

import typer

from study.plan.options import OPTIONS
from trainables.process.errors import UsageError

Command = TypeVar("Command", bound=Callable[..., None])

StudyName = Annotated[str, typer.Argument(metavar="NAME", help="Study, finished or not.", show_default=False)]
FinishedStudyName = Annotated[str, typer.Argument(metavar="NAME", help="Finished study.", show_default=False)]


def with_options(names: Iterable[str]) -> Callable[[Command], Command]:
    """Add options from the table to a command, which receives them as keyword arguments.

    Args:
        names: option names, in help order.
    """

    def decorate(command: Command) -> Command:
        own = inspect.signature(command, eval_str=True).parameters.values()
        named = [parameter for parameter in own if parameter.kind is not parameter.VAR_KEYWORD]
        signature = inspect.Signature([*named, *map(_parameter, names)])
        command.__signature__ = signature  # type: ignore[attr-defined]  # Typer reads the parameters from there
        return command

    return decorate


def _parameter(name: str) -> inspect.Parameter:
    option = OPTIONS[name]
    # A flag without a value needs all spellings, or Typer adds a negated flag.
    spelled = option.type is bool or option.flag or option.short
    spellings = [flag for flag in (option.long_flag, option.short) if flag] if spelled else []
    described = typer.Option(
        *spellings,
        help=option.help,
        rich_help_panel=option.panel,
        metavar=option.metavar,
        envvar=option.envvar,
        min=option.least,
        callback=CALLBACKS.get(name),
    )
    annotation: Any = Annotated[option.type, described]
    return inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=option.default, annotation=annotation)


def with_home(name: str, value: Any) -> Any:
    """Return an option's value, with `~` expanded as on the command line."""
    if name in _FOLDERS:
        return _expanded(value)
    callback = CALLBACKS.get(name)
    return value if callback is None else callback(value)


def in_home(dataset: str) -> str:
    """Return the dataset name, with `~` in an image folder's path expanded."""
    if "~" not in dataset:
        return dataset
    from trainables.spec.datasets import expand_home

    try:
        return expand_home(dataset)
    except ValueError as error:
        raise UsageError(f"--dataset {error}") from None


def _expanded(place: str) -> str:
    return str(Path(place).expanduser()) if place.startswith("~") else place


# Folders as texts, because they may be URIs. A shell expands them on the command line.
_FOLDERS: Final = ("storage_path", "teacher_outputs_path")
CALLBACKS: Final[dict[str, Callable[[Any], Any]]] = {"dataset": in_home}
