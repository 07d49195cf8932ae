"""User methods: specification of a method by the canonical name of the user's code.

The name is `my_method.py:METHOD@0123456789abcdef`. `METHOD` is the same kind of object as in a module of
`trainables.methods`, and no other object is needed. The module is executed on the first request for the specification,
in each process with a copy of the sources (`trainables.user_code.loading`). This imports torch, unlike the
specifications of this package. The settings of a user method are fields of this method's configs alone, so two studies
in one process may use two versions of a file.
"""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import replace
from types import UnionType
from typing import Any, Final, Literal, Union, get_args, get_origin

from trainables.spec.methods.settings import AdapterSettings, AdapterTermSettings, MethodSettings, WeightSettings
from trainables.spec.methods.spec import MethodSpec
from trainables.user_code.errors import UserCodeError
from trainables.user_code.loading import load
from trainables.user_code.reference import canonical, is_canonical

_TYPES: Final = (bool, int, float, str)
# Columns of the records besides the config fields.
RECORD_COLUMNS: Final = frozenset(
    {
        "trial_id", "study", "space", "stage", "name", "config_id", "replicate", "status", "error", "epochs_planned",
        "started", "seconds",
    }
)  # fmt: skip
_EXAMPLE: Final = 'METHOD = Method(MethodSpec("my_method", MySettings), my_losses)'

_trial_fields: set[str] = set()
_checked: dict[str, tuple[object, MethodSpec]] = {}


def is_own(name: str) -> bool:
    """Return whether a method is a user method, from the name alone."""
    return is_canonical(name)


def know_trial_fields(names: Iterable[str]) -> None:
    """Register the fields of every trial. No setting may have one of these names."""
    _trial_fields.update(names)


def loaded_spec(name: str, check_fields: Callable[[type[MethodSettings]], object]) -> MethodSpec:
    """Return the specification of a user method, named as in configs.

    Args:
        name: canonical name.
        check_fields: raises a ValueError for settings in conflict with the registered methods' settings.

    Raises:
        UserCodeError: the code cannot be loaded, or the object is not a usable method. The message gives the reason.
    """
    found = load(name)
    known = _checked.get(name)
    if known is None or known[0] is not found:
        own = canonical(name)
        known = _checked[name] = (found, replace(_spec_of(found, f"{own.title}:{own.name}", check_fields), name=name))
    return known[1]


def _spec_of(found: Any, shown: str, check_fields: Callable[[type[MethodSettings]], object]) -> MethodSpec:
    """Return the specification of an object after checking it."""
    spec, losses = getattr(found, "spec", None), getattr(found, "losses", None)
    if isinstance(found, type) or not isinstance(spec, MethodSpec) or not callable(losses):
        what = found.__name__ if isinstance(found, type) else f"a {type(found).__name__}"
        raise UserCodeError(
            f"{shown} is {what}, and a method must be a trainables.methods.method.Method with a MethodSpec and its "
            f"losses: define it as {_EXAMPLE}"
        )
    for name, why in (
        ("closed_form", "its gradients are computed by autograd: leave out closed_form"),
        ("teacher_method", "its teacher is trained as usual or given: leave out teacher_method"),
    ):
        if getattr(found, name, None) is not None:
            raise UserCodeError(f"{shown} is a method of your own, and {why}")
    if spec.teacher_settings is not None:
        raise UserCodeError(
            f"{shown} is a method of your own, and its teacher has no settings: leave out teacher_settings"
        )
    _check_settings_model(spec, shown, check_fields)
    _check_keywords(found, spec, shown)
    unread = sorted(
        name
        for values in (spec.published, spec.published_on_text, spec.published_adapter, *spec.published_on_task.values())
        for name in values
        if name not in replace(spec, has_adapter=spec.has_adapter or spec.takes_adapter).fields
    )
    if unread:
        raise UserCodeError(
            f"{shown} has a published value of {unread[0]!r}, which the method does not read: add the field to the "
            "settings or to trial_fields, or leave out the value"
        )
    return spec


def _check_settings_model(spec: MethodSpec, shown: str, check_fields: Callable[[type[MethodSettings]], object]) -> None:
    model = spec.settings
    if not (isinstance(model, type) and issubclass(model, MethodSettings)):
        raise UserCodeError(f"the settings of {shown} must be a subclass of MethodSettings, not {model!r}")
    try:
        check_fields(model)
    except ValueError as error:
        raise UserCodeError(f"{shown}: {error}") from None
    for name, field in model.model_fields.items():
        if name in _trial_fields or name in RECORD_COLUMNS:
            what = "every trial has a field" if name in _trial_fields else "every record has a column"
            raise UserCodeError(f"{shown}: {what} {name!r}, so rename the setting of that name in {model.__name__}")
        if not _is_plain(field.annotation):
            raise UserCodeError(
                f"{shown}: the setting {name!r} of {model.__name__} has the type {_type_in_words(field.annotation)}, "
                "and settings are bool, int, float, str or a Literal of strings"
            )
    foreign = sorted(spec.trial_fields - _trial_fields)
    if foreign:
        raise UserCodeError(
            f"{shown}: trial_fields contains {foreign[0]!r}, which is no field of every trial: declare it in "
            f"{model.__name__}; the fields are {', '.join(sorted(_trial_fields))}"
        )


def _is_plain(annotation: Any) -> bool:
    if get_origin(annotation) is Literal:
        return all(isinstance(each, str) for each in get_args(annotation))
    return annotation in _TYPES


def _type_in_words(annotation: Any) -> str:
    plain = isinstance(annotation, type) and get_origin(annotation) is None and not isinstance(annotation, UnionType)
    return annotation.__name__ if plain and annotation is not Union else str(annotation)


def _check_keywords(found: Any, spec: MethodSpec, shown: str) -> None:
    """Check that losses and parts read only fields declared by the specification."""
    declared = spec.trial_fields.union(spec.settings.model_fields)
    if spec.has_adapter or spec.takes_adapter:
        declared |= {*AdapterSettings.model_fields}
    readable = {*WeightSettings.model_fields, *AdapterSettings.model_fields, *AdapterTermSettings.model_fields}
    for role in ("losses", "parts"):
        function = getattr(found, role, None)
        if function is None:
            continue
        if not callable(function):
            raise UserCodeError(f"{shown}: {role} is a {type(function).__name__}, which cannot be called")
        try:
            parameters = inspect.signature(function).parameters
        except (TypeError, ValueError):
            raise UserCodeError(f"{shown}: {role} has no signature that can be read: give a function") from None
        _check_positions(parameters, role, shown)
        for name, each in parameters.items():
            if each.kind is each.KEYWORD_ONLY and name not in declared:
                hint = "inherit the settings from WeightSettings" if name in WeightSettings.model_fields else (
                    "set has_adapter or takes_adapter" if name in readable
                    else f"declare it in {spec.settings.__name__}, or add it to trial_fields if every trial has it"
                )  # fmt: skip
                raise UserCodeError(f"{shown}: {role} asks for {name!r}, which the MethodSpec does not declare: {hint}")


def _check_positions(parameters: Mapping[str, inspect.Parameter], role: str, shown: str) -> None:
    count, form = (2, "losses(outputs, labels, *, ...)") if role == "losses" else (1, "parts(setting, *, ...)")
    kinds = [each.kind for each in parameters.values()]
    positional = sum(
        kind in (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD) for kind in kinds
    )
    extra = any(kind in (inspect.Parameter.VAR_POSITIONAL, inspect.Parameter.VAR_KEYWORD) for kind in kinds)
    if positional != count or extra:
        raise UserCodeError(
            f"{shown}: {role} must have the form {form}: {count} positional parameter{'s' * (count > 1)}, then "
            "settings after an asterisk, each with the name of its field"
        )
