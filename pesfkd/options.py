"""Study options as keyword arguments, derived from the same table as the command line."""

import inspect
import os
import types
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, TypeVar, Union, get_args, get_origin

from pesfkd.own_code import reference_to
from study.cli.config_file import argument_of
from study.cli.configured import with_config
from study.cli.options import CALLBACKS
from study.plan.options import OPTIONS, Option
from trainables.display.nearest import did_you_mean
from trainables.process.errors import UsageError
from trainables.storage.uris import redact_place

Function = TypeVar("Function", bound=Callable[..., Any])

# Options for commands only, with the equivalent in Python.
_ELSEWHERE: Final = {
    "resume": "call pesfkd.resume(NAME)",
    "retry_failed": "call pesfkd.resume(NAME, retry_failed=True)",
    "set_aside_records": "call pesfkd.resume(NAME, set_aside_records=True)",
    "dry_run": "call pesfkd.plan(...), which runs nothing",
    "list_spaces": "call pesfkd.spaces()",
    "version": "read pesfkd.__version__",
    "print_config": "give --print-config to the command `pesfkd run`",
    "as_json": "read the attribute `summary` of the study",
    "verbose": "errors in Python have a traceback",
}
# Alternative option names, derived from the flag.
_FLAG_NAMES: Final = {option.long_flag[2:].replace("-", "_"): name for name, option in OPTIONS.items()}


def option_names(*but: str) -> tuple[str, ...]:
    """Return the option names for a new study in Python.

    Args:
        but: further options to leave out.
    """
    return tuple(name for name in OPTIONS if name not in _ELSEWHERE and name not in but)


def checked_options(
    given: Mapping[str, Any], *, accepted: Iterable[str], call: str
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of all options, and the given values, both with the command line's types.

    Args:
        given: the user's keyword arguments. None stands for an option not given.
        accepted: option names accepted by the function.
        call: function name, for messages.

    Raises:
        UsageError: a name is unknown, or a value has another type. The message names the nearest option.
    """
    accepted = tuple(accepted)
    found: dict[str, Any] = {}
    for word, value in given.items():
        name = _name_of(word, accepted, call)
        if name in found:
            raise UsageError(f"{word}: this option is given twice, also as {OPTIONS[name].name}")
        if value is not None:
            found[name] = _checked(OPTIONS[name], value)
    environment = {
        name: os.environ[variable]
        for name in accepted
        if (variable := OPTIONS[name].envvar) is not None and name not in found and os.environ.get(variable)
    }
    found |= {name: _checked(OPTIONS[name], text) for name, text in environment.items()}
    values = {name: option.default for name, option in OPTIONS.items()} | found
    if found.get("config") is not None:
        values, found = with_config(values, found, from_environment=environment)
    for name, resolve in CALLBACKS.items():
        values[name] = resolve(values[name])
        found |= {name: values[name]} if name in found else {}
    return values, found


def _name_of(word: str, accepted: tuple[str, ...], call: str) -> str:
    name = word if word in OPTIONS else _FLAG_NAMES.get(word, word)
    if name in accepted:
        return name
    if name in _ELSEWHERE:
        raise UsageError(f"{call} takes no {word}: {_ELSEWHERE[name]}")
    if name in OPTIONS:
        raise UsageError(f"{call} takes no {word}, which is an option of a new study: leave it out")
    hint = did_you_mean(word, [*accepted, *_FLAG_NAMES], repr)
    raise UsageError(f"{call} has no option {word!r}{hint} All options: help({call})")


def _checked(option: Option, value: Any) -> Any:
    return convert(option.name, without_none(option.type), value, least=option.least, form=option.metavar or "")


def convert(name: str, kind: Any, value: Any, *, least: int | None = None, form: str = "") -> Any:
    """Convert a value to the type given by the command line.

    Args:
        name: option name.
        kind: type of the option's value.
        value: the user's value.
        least: smallest value.
        form: description of valid values, for messages.

    Raises:
        UsageError: the value has another type, or is out of bounds.
    """
    if ",..." in form and isinstance(value, list | tuple):
        value = [reference_to(each) if callable(each) else each for each in value]
    if (
        ",..." in form
        and isinstance(value, list | tuple)
        and all(isinstance(each, str | os.PathLike) for each in value)
    ):
        value = ",".join(os.path.expanduser(each) for each in value)  # noqa: PTH111 - other strings stay unchanged
    result = _text(value, form) if kind is str else _converted(kind, value)
    if result is _WRONG:
        raise UsageError(f"{name}={value!r}: give {_in_words(kind, form)}")
    if least is not None and result < least:
        raise UsageError(f"{name}={value!r}: give {least} or more")
    return result


_WRONG: Final = object()
_FRACTION: Final = "GPUS|auto"  # description of a number, not necessarily whole


def _converted(kind: Any, value: Any) -> Any:
    if get_origin(kind) is Literal:
        return value if value in get_args(kind) else _WRONG
    if kind is bool:
        return value if isinstance(value, bool) else _WRONG
    if get_origin(kind) is list:
        return _words(value)
    if isinstance(value, bool):
        return _WRONG
    if kind is int:
        return _whole(value)
    if kind is float:
        return _number(value)
    if kind is Path:
        return Path(value).expanduser() if isinstance(value, str | os.PathLike) and str(value) else _WRONG
    return value


def _whole(value: Any) -> Any:
    try:
        return value.__index__()
    except AttributeError:
        return _WRONG


def _number(value: Any) -> Any:
    try:
        return float(value) if not isinstance(value, str) else _WRONG
    except (TypeError, ValueError):
        return _WRONG


def _text(value: Any, form: str) -> Any:
    """Return a text, also from a number if the option takes one."""
    if isinstance(value, str):
        return value
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if callable(value):
        return reference_to(value)
    if "|auto" not in form or isinstance(value, bool):
        return _WRONG
    number = _number(value) if form == _FRACTION else _whole(value)
    return _WRONG if number is _WRONG else str(number)


def _words(value: Any) -> Any:
    """Return words like FIELD=VALUE, also from a mapping of fields to values."""
    if isinstance(value, Mapping):
        return [f"{field}={argument_of(_as_text(each), where=str(field))}" for field, each in value.items()]
    words = [value] if isinstance(value, str) else value
    is_list = isinstance(words, list | tuple) and all(isinstance(each, str) for each in words)
    return list(words) if is_list else _WRONG


def _as_text(value: Any) -> Any:
    """Return a value as written in a config file."""
    if callable(value):
        return reference_to(value)
    if isinstance(value, list | tuple):
        return [_as_text(each) for each in value]
    return str(value).lower() if isinstance(value, bool) else str(value)


def without_none(kind: Any) -> Any:
    """Return a type without None."""
    if get_origin(kind) in (Union, types.UnionType):
        (kind,) = [each for each in get_args(kind) if each is not type(None)]
    return kind


def _in_words(kind: Any, form: str) -> str:
    if get_origin(kind) is Literal:
        return f"one of {', '.join(map(repr, get_args(kind)))}"
    if get_origin(kind) is list:
        return f"a dict, or a list of texts {form}".rstrip()
    if kind is str and "|auto" in form:
        return f"a {'number' if form == _FRACTION else 'whole number'}, or 'auto'"
    words = {bool: "True or False", int: "a whole number", float: "a number", str: "a text", Path: "a path"}
    return words.get(kind, str(kind))


def as_arguments(given: Mapping[str, Any]) -> str:
    """Return options as written in a call, without secrets: `trials=3, output_dir='out'`."""
    shown = {name: os.fspath(value) if isinstance(value, os.PathLike) else value for name, value in given.items()}
    shown = {name: redact_place(value) if isinstance(value, str) else value for name, value in shown.items()}
    return ", ".join(f"{name}={value!r}" for name, value in shown.items())


def with_keywords(*but: str) -> Callable[[Function], Function]:
    """Add the options for a new study to a function's signature and docstring, for `help` and completion.

    Args:
        but: options to leave out.
    """

    def decorate(function: Function) -> Function:
        own = [p for p in inspect.signature(function).parameters.values() if p.kind is not p.VAR_KEYWORD]
        names = [name for name in option_names(*but) if name not in {each.name for each in own}]
        keyword = inspect.Parameter.KEYWORD_ONLY
        options = [inspect.Parameter(name, keyword, default=OPTIONS[name].default) for name in names]
        function.__signature__ = inspect.Signature([*own, *options])  # type: ignore[attr-defined]
        lines = [f"    {name}: {OPTIONS[name].help}" for name in names]
        function.__doc__ = "\n".join([inspect.cleandoc(function.__doc__ or ""), "", "Options:", *lines])
        return function

    return decorate
