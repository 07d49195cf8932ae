"""Values of options from a config file and from the command line."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from study.cli.config_file import key_of, read_config
from study.cli.options import with_home
from study.plan.options import OPTIONS, names_into
from trainables.process.errors import UsageError
from trainables.storage.uris import REDACTED

# Repeatable options of the form FIELD=..., merged by field.
_BY_FIELD: Final = ("hold", "search", "limit")


def with_config(
    values: Mapping[str, Any], given: Mapping[str, Any], *, from_environment: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of all options, and those given by the user, with those of the config file added.

    The command line overrides the file, and the file overrides environment variables. A field that the command line
    searches or fixes replaces that field in the file, however the file gives it.

    Args:
        values: values of all options of the command, among them `config`, the file.
        given: options given on the command line or by environment variables.
        from_environment: names of the options given by environment variables.

    Raises:
        UsageError: the file cannot be read, or has a wrong key or value.
    """
    own = {name: value for name, value in given.items() if name not in from_environment}
    file = {name: with_home(name, value) for name, value in read_config(values["config"], values).items()}
    fields = _fields_of(own)
    for name in _BY_FIELD:
        kept = [each for each in file.get(name) or () if _field(each) not in fields]
        file[name] = [*kept, *(own.get(name) or ())]
        if not file[name]:
            del file[name]
    for name in {"temperature", *names_into("config")} & fields:
        file.pop(name, None)
    for name, value in file.items():
        if name not in own and isinstance(value, str) and REDACTED in value:
            flag = OPTIONS[name].long_flag
            raise UsageError(
                f"--config {values['config']}: {key_of(OPTIONS[name])}: the secrets of this URI are left out: give "
                f"{flag} on the command line"
            )
    merged = {**given, **file, **{name: value for name, value in own.items() if name not in _BY_FIELD}}
    return {**values, **merged}, merged


def _fields_of(own: Mapping[str, Any]) -> set[str]:
    """Return the config fields that options search or fix."""
    fixed = {name for name in own if name == "temperature" or name in names_into("config")}
    return fixed | {_field(each) for name in _BY_FIELD for each in own.get(name) or ()}


def _field(argument: str) -> str:
    return argument.partition("=")[0].strip().replace("-", "_")
