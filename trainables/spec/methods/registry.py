"""Registry of method specifications, and validation of method settings by name.

Each method is declared in two places. A module of this package has the settings and the `MethodSpec`, and a module of
`trainables.methods` has the losses and defines `METHOD`. The two are separate because the losses import torch, and a
plan is checked and printed before torch is imported.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from typing import Any, Final

from pydantic import ValidationError, create_model
from pydantic.fields import FieldInfo

from trainables.spec.methods import basic, features, logits, maps, text, trained_networks
from trainables.spec.methods.own import is_own, loaded_spec
from trainables.spec.methods.settings import AdapterSettings, AdapterTermSettings, MethodSettings, WeightSettings
from trainables.spec.methods.spec import MethodSpec

METHOD_SPECS: Final[dict[str, MethodSpec]] = {
    spec.name: spec for family in (basic, logits, features, trained_networks, maps, text) for spec in family.SPECS
}


def method_spec(name: str, *, adapter: bool = False) -> MethodSpec:
    """Return a method's specification.

    Args:
        name: name of a registered method, or canonical name of a user method.
        adapter: whether to enable the method's optional adapter.
    """
    spec = own_spec(name) if is_own(name) else METHOD_SPECS[name]
    return replace(spec, has_adapter=True) if adapter and spec.takes_adapter else spec


def own_spec(name: str) -> MethodSpec:
    """Return a user method's specification by canonical name.

    Raises:
        UserCodeError: the code cannot be loaded, or is not a method that can be used. The message gives the reason.
    """
    return loaded_spec(name, lambda model: settings_fields((*registered_settings(), model)))


def registered_settings(*methods: str) -> tuple[type[MethodSettings], ...]:
    """Return the settings models for adapters and all registered methods; records show settings in this order.

    Args:
        methods: method names. User methods' models come last.
    """
    own = (own_spec(name).settings for name in dict.fromkeys(methods) if is_own(name))
    registered = (spec.settings for spec in METHOD_SPECS.values())
    return (WeightSettings, AdapterSettings, AdapterTermSettings, *registered, *own)


def is_known_method(name: str) -> bool:
    """Return whether a method is registered, or has the form of a user method's name."""
    return name in METHOD_SPECS or is_own(name)


def check_settings(method: str, given: Mapping[str, Any]) -> tuple[dict[str, Any], list[ValidationError]]:
    """Validate all methods' settings. The settings of `method` are validated together, by the model of `method`.

    Args:
        method: method name; may be unknown.
        given: given settings for any method, by field name.

    Returns:
        All methods' settings, with defaults for missing ones, and the errors. With errors, the settings are incomplete.
    """
    own = method_spec(method).settings if is_known_method(method) else MethodSettings
    read = {name: given[name] for name in own.model_fields if name in given}
    unread = {name: value for name, value in given.items() if name not in read}
    values: dict[str, Any] = {}
    errors = []
    for model, part in ((_combined(registered_settings(method)), unread), (own, read)):
        try:
            values |= model.model_validate(part).__dict__
        except ValidationError as error:
            errors.append(error)
    return values, errors


@cache
def settings_fields(models: tuple[type[MethodSettings], ...]) -> Mapping[str, FieldInfo]:
    """Return the fields of settings models by name.

    Raises:
        ValueError: a field has no default, or two models declare different fields with one name.
    """
    found: dict[str, FieldInfo] = {}
    for model in models:
        for name, field in model.model_fields.items():
            if not _is_same(found.setdefault(name, field), field):
                raise ValueError(
                    f"field {name!r} of {model.__name__} differs from the field of that name of another method: rename "
                    "it, or inherit it from the same class"
                )
            if field.is_required():
                raise ValueError(f"field {name!r} of {model.__name__} has no default: give one")
    return found


def _is_same(first: FieldInfo, second: FieldInfo) -> bool:
    return (first.annotation, first.default, first.metadata) == (second.annotation, second.default, second.metadata)


@cache
def _combined(models: tuple[type[MethodSettings], ...]) -> type[MethodSettings]:
    """Return a model with the fields of all `models`, for values not read by the trial's method."""
    fields: dict[str, Any] = {name: (field.annotation, field) for name, field in settings_fields(models).items()}
    return create_model("SettingsOfAllMethods", __base__=MethodSettings, **fields)
