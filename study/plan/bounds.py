"""Bounds given by the user with `--search`: parsing, and checks independent of the rest of the plan.

The forms are `FIELD=LOW:HIGH`, `FIELD=LOW:HIGH:log`, `FIELD=LOW:HIGH:STEP` and `FIELD=A,B,...`. In a config file, the
part after the equals sign may also be a list, for example `[1, 32, log]`.
"""

import math
import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any, Final

from search_spaces import Bounds
from search_spaces.bounds import in_words
from search_spaces.space import Kind, Value
from study.plan.options import OPTIONS, names_into
from trainables.process.errors import UsageError
from trainables.spec.architectures import absolute_name
from trainables.spec.modality import is_text
from trainables.spec.naming import unknown_name
from trainables.spec.searchable import FIXED_IN_A_STUDY, FieldLimits, limits_of, searchable_fields

FLAG: Final = OPTIONS["search"].long_flag
FORMS: Final = "LOW:HIGH, LOW:HIGH:log, LOW:HIGH:STEP, or values A,B,..."
_NUMBER: Final = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)([eE][+-]?[0-9]{1,4})?")
_BOOLEANS: Final = {"true": True, "false": False}
_MOST_CHOICES: Final = 100
_MOST_NAMED: Final = 5
_ROUNDING: Final = 1e-9  # of a number of steps


def read_bounds(arguments: Sequence[str], methods: Sequence[str] = ()) -> tuple[Bounds, ...]:
    """Return the bounds given by `--search`.

    Args:
        arguments: one argument for each field, for example `temperature=1:32:log`.
        methods: the user's own methods. Their settings can be searched too.

    Raises:
        UsageError: an argument cannot be read, no search varies the field, the field does not accept a value, or a
            field is given twice.
    """
    found: dict[str, Bounds] = {}
    for argument in arguments:
        bounds = _read(argument, methods)
        if bounds.field in found:
            raise UsageError(f"{FLAG} {argument}: {bounds.field} is given twice by {FLAG}: leave out one of the two")
        found[bounds.field] = bounds
    return tuple(found.values())


def given_bounds(values: Mapping[str, Any], methods: Sequence[str] = ()) -> tuple[Bounds, ...]:
    """Return the bounds given by option values. Folders of language models become absolute paths.

    Args:
        values: options by name.
        methods: the user's own methods in the study.
    """
    found = read_bounds(values.get("search") or (), methods)
    if not is_text(values.get("dataset", "")):
        return found
    return tuple(
        replace(each, choices=tuple(absolute_name(str(name)) for name in each.choices))
        if each.field == "student"
        else each
        for each in found
    )


def with_start(values: Mapping[str, Any], search: Sequence[Bounds]) -> dict[str, Any]:
    """Return options with the starting student of a search over students, if there is one."""
    starts = {each.field: each.start(values[each.field]) for each in search if each.field == "student"}
    return {**values, **starts}


def split_argument(argument: str, flag: str, form: str, methods: Sequence[str]) -> tuple[str, str]:
    """Return the searchable field in an argument, and the text after the equals sign.

    Args:
        argument: `FIELD=TEXT` as typed.
        flag: option of the argument, for messages.
        form: form of the argument with an example, such as `FIELD=VALUE, such as --prior temperature=4`.
        methods: the user's own methods. Their settings can be searched too.

    Raises:
        UsageError: the argument has another form, or the field cannot be searched.
    """
    field, separator, text = argument.partition("=")
    field = field.strip().replace("-", "_")
    if not separator or not field:
        raise UsageError(f"{flag} {argument!r}: use the form {form}")
    if field in FIXED_IN_A_STUDY:
        raise UsageError(f"{flag} {argument}: {field} cannot be searched: {FIXED_IN_A_STUDY[field]}")
    known = searchable_fields(*methods)
    if field not in known:
        raise UsageError(f"{flag} {argument}: {unknown_name('field', field, known)}")
    return field, text.strip()


def _read(argument: str, methods: Sequence[str]) -> Bounds:
    field, text = split_argument(argument, FLAG, f"FIELD=BOUNDS, such as {FLAG} temperature=1:32:log", methods)
    limits, shown = limits_of(field, *methods), f"{FLAG} {argument}"
    if not text:
        raise UsageError(f"{shown}: no value is given: give {_forms(limits)}; {field} has {limits.in_words}")
    if limits.kind in ("float", "int") and ":" in text:
        return _range(field, text, limits, shown)
    return _choices(field, text, limits, shown)


def read_value(text: str, limits: FieldLimits, shown: str) -> Value:
    """Return a single value accepted by a field.

    Args:
        text: the value as typed.
        limits: the field's limits.
        shown: the argument, for messages.

    Raises:
        UsageError: the field does not accept the value.
    """
    if limits.kind in ("float", "int"):
        return _number(text, limits, shown)
    if not _is_accepted(text, limits):
        raise UsageError(f"{shown}: {text!r} is not allowed; allowed are {limits.in_words}")
    return _value(text, limits, shown)


def _forms(limits: FieldLimits) -> str:
    return FORMS if limits.kind in ("float", "int") else "values A,B,..."


def _range(field: str, text: str, limits: FieldLimits, shown: str) -> Bounds:
    """Return numeric bounds."""
    ends, scale = text.split(":")[:2], [part.strip() for part in text.split(":")[2:]]
    low, high = (_number(part.strip(), limits, shown) for part in ends)
    if not low < high:
        order = "are equal" if low == high else "are reversed"
        advice = f"--set {field}={in_words(low)} fixes it" if low == high else f"give {in_words(high)}:{in_words(low)}"
        raise UsageError(f"{shown}: the bounds {in_words(low)} and {in_words(high)} {order}; {advice}")
    log, step = False, None
    for part in scale:
        if part == "log" and not log:
            log = True
        elif part == "int" and step is None:
            step = 1 if limits.kind == "int" else 1.0
        elif _NUMBER.fullmatch(part) and step is None:
            step = _step(part, low, high, limits, shown)
        else:
            raise UsageError(f"{shown}: {part!r} is neither log nor a step: give {FORMS}")
    if log and low <= 0:
        raise UsageError(f"{shown}: a log scale must start above 0, not at {in_words(low)}: give a larger LOW")
    if step == 1 and limits.kind == "int":
        step = None  # the usual step of an int
    if log and step is not None:
        raise UsageError(f"{shown}: a log scale has no steps: leave out log or the step, or list the values")
    if step is not None:
        _check_steps(low, high, step, shown)
    return Bounds(field=field, kind=_kind(limits), low=low, high=high, log=log, step=step)


def _kind(limits: FieldLimits) -> Kind:
    return "int" if limits.kind == "int" else "float" if limits.kind == "float" else "categorical"


def _step(part: str, low: float, high: float, limits: FieldLimits, shown: str) -> int | float:
    step = float(part)
    if limits.kind == "int" and not step.is_integer():
        raise UsageError(f"{shown}: the step {part} is not a whole number, as the values must be")
    if not 0 < step <= high - low:
        raise UsageError(f"{shown}: the step {part} must be above 0, and at most {in_words(high - low)}")
    return int(step) if limits.kind == "int" else step


def _check_steps(low: float, high: float, step: float, shown: str) -> None:
    steps = (high - low) / step
    if abs(steps - round(steps)) > _ROUNDING * max(1.0, steps):
        below = float(f"{low + math.floor(steps) * step:.12g}")
        above = float(f"{low + math.ceil(steps) * step:.12g}")
        raise UsageError(
            f"{shown}: {in_words(high)} is not a whole number of steps of {in_words(step)} above {in_words(low)}: give "
            f"{in_words(below)} or {in_words(above)} as HIGH"
        )


def _number(text: str, limits: FieldLimits, shown: str) -> int | float:
    """Return a number accepted by the field."""
    if not _NUMBER.fullmatch(text):
        given = repr(text) if text else "an empty value"
        raise UsageError(f"{shown}: {given} is not a number; allowed are {limits.in_words}")
    value = float(text)
    if limits.kind == "int":
        if not value.is_integer():
            raise UsageError(f"{shown}: {text} is not a whole number; allowed are {limits.in_words}")
        value = int(text) if re.fullmatch("[+-]?[0-9]+", text) else int(value)
    if not limits.contains(value):
        raise UsageError(f"{shown}: {text} is not allowed; allowed are {limits.in_words}")
    return value


def _choices(field: str, text: str, limits: FieldLimits, shown: str) -> Bounds:
    parts = [part.strip() for part in text.split(",")]
    if "" in parts:
        raise UsageError(f"{shown}: an empty value between two commas: give {_forms(limits)}")
    if len(parts) > _MOST_CHOICES:
        raise UsageError(f"{shown[:80]}...: {len(parts)} values are given, and {_MOST_CHOICES} are the most")
    wrong = [part for part in parts if not _is_accepted(part, limits)]
    if wrong:
        more = f" and {len(wrong) - _MOST_NAMED} more" if len(wrong) > _MOST_NAMED else ""
        verb = "are" if len(wrong) > 1 else "is"
        raise UsageError(
            f"{shown}: {', '.join(map(repr, wrong[:_MOST_NAMED]))}{more} {verb} not allowed; allowed are "
            f"{limits.in_words}"
        )
    choices = tuple(_value(part, limits, shown) for part in parts)
    twice = [each for number, each in enumerate(choices) if each in choices[:number]]
    if twice:
        raise UsageError(f"{shown}: {in_words(twice[0])} is given twice: leave out one of the two")
    if len(choices) < 2:
        raise UsageError(
            f"{shown}: one value leaves nothing to search: give {_forms(limits)}, or fix the value with "
            f"{_fixing(field)}{in_words(choices[0])}"
        )
    return Bounds(field=field, kind="categorical", choices=choices)


def _fixing(field: str) -> str:
    """Return the beginning of an argument that fixes a field."""
    return f"{OPTIONS[field].long_flag} " if field in names_into("config") else f"--set {field}="


def _is_accepted(part: str, limits: FieldLimits) -> bool:
    match limits.kind:
        case "bool":
            return part.lower() in _BOOLEANS
        case "choice":
            return part in limits.choices
        case "name":
            return True  # the config checks names
        case _:
            whole = limits.kind == "float" or float(part).is_integer() if _NUMBER.fullmatch(part) else False
            return whole and limits.contains(float(part))


def _value(part: str, limits: FieldLimits, shown: str) -> Value:
    if limits.kind == "bool":
        return _BOOLEANS[part.lower()]
    return _number(part, limits, shown) if limits.kind in ("float", "int") else part


def refuse_given_twice(bounds: Sequence[Bounds], given: Mapping[str, Any], of_space: Sequence[Bounds] = ()) -> None:
    """Check that no searched field is also fixed by another option.

    Args:
        bounds: bounds given by the user.
        given: options given by the user.
        of_space: the bounds in `bounds` from a user space.

    Raises:
        UsageError: an option fixes a searched field.
    """
    held = {str(each).partition("=")[0].strip().replace("-", "_") for each in given.get("hold") or ()}
    for each in bounds:
        flag = ""
        if each.field in held:
            flag = f"--set {each.field}"
        elif given.get(each.field) is not None and each.field in {*names_into("config"), "temperature"}:
            flag = OPTIONS[each.field].long_flag
        if flag:
            where = "--space, which searches" if each in of_space else FLAG
            raise UsageError(f"{where} {each.text} and {flag}: a field is either searched or fixed: leave out one")
