"""Option values from a config file and from the command line."""

from collections.abc import Collection, Mapping
from typing import Any, Final

from study.cli.config_file import key_of, read_config
from study.cli.options import with_home
from study.plan.options import OPTIONS, names_into
from trainables.process.errors import UsageError
from trainables.storage.uris import REDACTED

# Repeatable options of the form FIELD=..., merged by field.
_BY_FIELD: Final = ("hold", "search", "limit", "prior")
# Options for the allowed values of a field. A belief about a field does not restrict the allowed values.
_VALUES: Final = ("hold", "search", "limit")


def with_config(
    values: Mapping[str, Any], given: Mapping[str, Any], *, from_environment: Collection[str]
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of all options, and the options given by the user, including those from the config file.

    The command line overrides the file, and the file overrides environment variables. If the command line searches or
    fixes a field, this replaces the field in the file, whether the file searches or fixes it. If the command line fixes
    a field, or has another belief about it, this replaces the file's beliefs about the field.

    Args:
        values: values of all command options, including the file as `config`.
        given: options given on the command line or by environment variables.
        from_environment: names of options given by environment variables.

    Raises:
        UsageError: the file cannot be read, or has a wrong key or value.
    """
    own = {name: value for name, value in given.items() if name not in from_environment}
    file = {name: with_home(name, value) for name, value in read_config(values["config"], values).items()}
    fields = _fields_of(own)
    dropped = {**dict.fromkeys(_VALUES, fields), "prior": _fields_of(own, ("hold", "prior"))}
    for name in _BY_FIELD:
        kept = [each for each in file.get(name) or () if _field(each) not in dropped[name]]
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


def _fields_of(own: Mapping[str, Any], repeatable: Collection[str] = _VALUES) -> set[str]:
    """Return the config fields searched or fixed by options.

    Args:
        own: options by name.
        repeatable: names of FIELD=... options to read.
    """
    fixed = {name for name in own if name == "temperature" or name in names_into("config")}
    return fixed | {_field(each) for name in repeatable for each in own.get(name) or ()}


def _field(argument: str) -> str:
    return argument.partition("=")[0].strip().replace("-", "_")
