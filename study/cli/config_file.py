"""Study options from a file: YAML, TOML, JSON, or another study's `plan.json`.

Keys are the option names, with hyphens or underscores. The option type determines how a value is read; the file's
notation does not. YAML's own rules would turn `no` into false, `010` into 8, `1:30` into 90 and a date into an object,
and would leave `1e-3` a string. Here, each value is read as written.
"""

import json
import re
import tomllib
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin

from study.plan.options import OPTIONS, Option
from trainables.process.errors import UsageError
from trainables.spec.naming import unknown_name

_MOST_BYTES: Final = 1_000_000
_MOST_VALUES: Final = 10_000
_LONGEST: Final = 60  # maximum number of characters shown of a value in a message
# Options not allowed in a file, because they choose or show the file, or show something other than a study.
NOT_IN_A_FILE: Final = ("config", "print_config", "list_spaces", "version")
_NULL: Final = ("", "~", "null", "Null", "NULL")
_BOOLEANS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_INT: Final = re.compile(r"[+-]?[0-9]{1,18}")
_FLOAT: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_TAG: Final = "tag:yaml.org,2002:"
_SEVERAL: Final = (",...", "[,...]")  # ends of metavars
_SCALES: Final = ("log", "linear", "int")


class Plain(str):
    """Value written without quotes. `null` without quotes means no value."""

    __slots__ = ()


def read_config(path: Path, names: Iterable[str]) -> dict[str, Any]:
    """Return the options in a file, by name, converted to the option types.

    Args:
        path: file in YAML, TOML or JSON.
        names: names of the command's options.

    Raises:
        UsageError: the file cannot be read, or has an unknown key, a repeated key or a value with a wrong type.
    """
    content = _read(path)
    if isinstance(content, Mapping) and {"study_id", "base"} <= content.keys():
        content = _of_plan(path)
    if not isinstance(content, Mapping):
        what = "nothing" if content is None else f"a {'list' if isinstance(content, list) else 'single value'}"
        raise UsageError(f"--config {path} contains {what}: give options by name, such as 'space: adapter_width'")
    allowed = {key_of(OPTIONS[name]): OPTIONS[name] for name in names if name not in NOT_IN_A_FILE}
    aliases = {option.name: option for option in allowed.values()}
    found: dict[str, Any] = {}
    typed: dict[str, str] = {}
    for key, value in content.items():
        option = (allowed | aliases).get(str(key).replace("-", "_"))
        if option is None:
            raise UsageError(f"--config {path}: {_unknown(str(key), allowed)}")
        if option.name in typed:
            raise UsageError(f"--config {path}: {typed[option.name]!r} and {key!r} are one option: leave out one")
        typed[option.name] = str(key)
        given = _value(option, value, where=f"--config {path}: {key}")
        if given is not None:
            found[option.name] = given
    return found


def key_of(option: Option) -> str:
    """Return an option's key: the flag without leading hyphens, with underscores."""
    return option.long_flag.removeprefix("--").replace("-", "_")


def _unknown(key: str, allowed: Mapping[str, Option]) -> str:
    name = key.replace("-", "_")
    if name in NOT_IN_A_FILE:
        return f"{key!r} can only be given on the command line"
    if name in OPTIONS or name in {key_of(option) for option in OPTIONS.values()}:
        return f"{key!r} is no option of this command. Known: {', '.join(allowed)}"
    return unknown_name("option", key, allowed)


def _read(path: Path) -> Any:
    """Return a file's content: mappings, lists and texts."""
    readers: dict[str, Callable[[str, Path], Any]] = {
        ".yaml": _read_yaml, ".yml": _read_yaml, ".toml": _read_toml, ".json": _read_json,
    }  # fmt: skip
    if path.suffix.lower() not in readers:
        raise UsageError(f"--config {path}: give a file that ends in .yaml, .yml, .toml or .json")
    try:
        with path.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except OSError as error:
        raise UsageError(f"--config {path} cannot be read ({error.strerror}): give another file") from None
    if len(content) > _MOST_BYTES:
        raise UsageError(f"--config {path} has more than {_MOST_BYTES:,} bytes, which is too large for options")
    try:
        return readers[path.suffix.lower()](content.decode("utf-8-sig"), path)
    except UnicodeDecodeError as error:
        raise UsageError(f"--config {path} is not text: {error.reason} at byte {error.start}") from None
    except RecursionError:
        raise UsageError(f"--config {path}: values are nested too deeply") from None


def _read_json(text: str, path: Path) -> Any:
    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        return _unique(pairs, path)

    hooks: dict[str, Any] = dict.fromkeys(("parse_float", "parse_int", "parse_constant"), Plain)
    try:
        return _as_texts(json.loads(text, object_pairs_hook=unique, **hooks), path)
    except json.JSONDecodeError as error:
        raise UsageError(f"--config {path} is not JSON: {error}") from None


def _read_toml(text: str, path: Path) -> Any:
    try:
        return _as_texts(tomllib.loads(text, parse_float=Plain), path)
    except tomllib.TOMLDecodeError as error:
        raise UsageError(f"--config {path} is not TOML: {error}") from None


def _as_texts(value: Any, path: Path) -> Any:
    """Convert numbers, booleans and null to texts without quotes."""
    if isinstance(value, dict):
        return {key: _as_texts(each, path) for key, each in value.items()}
    if isinstance(value, list):
        return [_as_texts(each, path) for each in value]
    if isinstance(value, str):
        return value
    if value is None or isinstance(value, bool):
        return Plain("null" if value is None else str(value).lower())
    if isinstance(value, int):
        return Plain(value)
    raise UsageError(f"--config {path}: {value} is a date or a time, which no option takes: put it in quotes")


def _unique(pairs: Iterable[tuple[Any, Any]], path: Path) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise UsageError(f"--config {path}: the key {key!r} is given twice: leave out one of the two")
        found[key] = value
    return found


def _read_yaml(text: str, path: Path) -> Any:
    import yaml

    budget = [_MOST_VALUES]  # an alias can repeat a list of aliases

    def value_of(node: yaml.Node) -> Any:
        budget[0] -= 1
        if budget[0] < 0:
            raise UsageError(f"--config {path} has more than {_MOST_VALUES:,} values, which is too many for options")
        if not node.tag.startswith(_TAG) or node.tag.startswith(f"{_TAG}python"):
            raise UsageError(f"--config {path}, line {node.start_mark.line + 1}: the tag {node.tag!r} is not allowed")
        if isinstance(node, yaml.MappingNode):
            return _unique(((name_of(key), value_of(value)) for key, value in node.value), path)
        if isinstance(node, yaml.SequenceNode):
            return [value_of(each) for each in node.value]
        return node.value if node.style in ("'", '"', "|", ">") else Plain(node.value)

    def name_of(node: yaml.Node) -> str:
        if not isinstance(node, yaml.ScalarNode):
            raise UsageError(f"--config {path}, line {node.start_mark.line + 1}: a key is the name of an option")
        if node.tag == f"{_TAG}merge":
            raise UsageError(
                f"--config {path}, line {node.start_mark.line + 1}: '<<' is not supported: repeat the keys"
            )
        return str(node.value)

    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
    except yaml.YAMLError as error:
        raise UsageError(f"--config {path} is not YAML: {error}") from None
    return None if node is None else value_of(node)


def _of_plan(path: Path) -> dict[str, Any]:
    """Return the options for a new study with the same question and execution as another study, without the name."""
    from study.cli.start_command import options_of
    from study.plan.resolve import read_plan

    found: dict[str, Any] = {}
    for name, value in options_of(read_plan(path)):
        text = Plain("true" if value is True else str(value))
        if name in ("set", "search", "limit", "prior"):
            found.setdefault(name, []).append(text)
        else:
            found[name] = text
    return found


def _value(option: Option, value: Any, *, where: str) -> Any:
    """Return an option's value, or None if the file gives none."""
    kind = _kind(option.type)
    if isinstance(value, Plain) and value in _NULL:
        return None
    if kind is list:
        return _texts(option, value, where=where)
    if isinstance(value, list) and _takes_several(option):
        value = _joined(option, value, where=where)
    if not isinstance(value, str):
        raise UsageError(f"{where}: {_shown(value)} is given, and {_allowed(option)} is allowed")
    found = _converted(option, kind, value)
    if found is None:
        raise UsageError(f"{where}: {_shown(value)} is given, and {_allowed(option)} is allowed")
    return found


def _takes_several(option: Option) -> bool:
    """Return whether an option's value is one or more texts, separated by commas."""
    return option.metavar is not None and option.metavar.endswith(_SEVERAL)


def _joined(option: Option, value: list[Any], *, where: str) -> str:
    """Join a list of texts to the value of an option for several texts."""
    if not value or not all(isinstance(each, str) and each.strip() and "," not in each for each in value):
        raise UsageError(
            f"{where}: {_shown(value)} is given, and {_allowed(option)} or a list of such texts is allowed"
        )
    return ",".join(value)


def _converted(option: Option, kind: Any, text: str) -> Any:
    """Convert a text to the option's type. Return None if it is not of this type."""
    if get_origin(kind) is Literal:
        return str(text) if text in get_args(kind) else None
    if kind is bool:
        return _BOOLEANS.get(text.lower())
    if kind is int:
        found = int(text) if _INT.fullmatch(text) else None
        return None if found is None or (option.least is not None and found < option.least) else found
    if kind is float:
        return float(text) if _FLOAT.fullmatch(text) else None
    if not text.strip():
        return None
    return Path(text).expanduser() if kind is Path else str(text)


def _kind(annotation: Any) -> Any:
    """Return the type of an option's value, without None; `list` for a list of texts."""
    if get_origin(annotation) is Literal:
        return annotation
    known = [each for each in get_args(annotation) if each is not type(None)] or [annotation]
    return list if get_origin(known[0]) is list else known[0]


def _allowed(option: Option) -> str:
    """Describe an option's allowed values."""
    kind = _kind(option.type)
    if get_origin(kind) is Literal:
        return f"one of {', '.join(get_args(kind))}"
    if kind is int and option.least is not None:
        return f"a whole number from {option.least}"
    names = {bool: "true or false", int: "a whole number", float: "a number", Path: "a path"}
    return names.get(kind, "a text" + (f" ({option.metavar})" if option.metavar else ""))


def _texts(option: Option, value: Any, *, where: str) -> list[str]:
    """Return a repeatable option's arguments: a mapping by field, a list of arguments, or one argument."""
    if isinstance(value, Mapping):
        return [f"{field}={argument_of(each, where=f'{where}.{field}')}" for field, each in value.items()]
    given = [value] if isinstance(value, str) else value
    if not all(isinstance(each, str) for each in given):
        raise UsageError(
            f"{where}: {_shown(value)} is given; allowed are a mapping, such as {{temperature: ...}}, and a list of "
            f"texts {option.metavar}"
        )
    return [str(each) for each in given]


def argument_of(value: Any, *, where: str) -> str:
    """Return the part after the equals sign in an argument, as in `temperature=1:32:log`.

    Args:
        value: text, or list of texts.
        where: location of the value, for messages.

    Raises:
        UsageError: the value is neither, or it is an ambiguous list of two numbers: a range or two values.
    """
    if isinstance(value, str):
        return str(value)
    if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
        numbers = [each for each in value if _FLOAT.fullmatch(each)]
        if value[-1] in _SCALES and len(value) == 3 and len(numbers) == 2:
            scale = {"linear": ""}.get(value[-1], f":{value[-1]}")
            return f"{value[0]}:{value[1]}{scale}"
        if len(value) == len(numbers) == 2:
            low, high = value
            raise UsageError(
                f"{where}: [{low}, {high}] may be a range or two values: write [{low}, {high}, linear] or "
                f"[{low}, {high}, log] for a range, and '{low},{high}' for two values"
            )
        return ",".join(value)
    raise UsageError(f"{where}: {_shown(value)} is given; allowed are a text and a list, such as [1, 32, log]")


def _shown(value: Any) -> str:
    text = repr(str(value) if isinstance(value, str) else value)
    return text if len(text) <= _LONGEST else f"{text[:_LONGEST]}..."
